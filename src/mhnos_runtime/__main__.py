"""The command `mhnos-runtime`, also as `python -m mhnos_runtime`: its process, from start to exit."""

from __future__ import annotations

import gc
import os
import sys

#: Objects between two collections of garbage: more than are made by a verb that asks one thing.
COLLECT_EVERY = 50_000


def main() -> None:
    """Carry the command line out, and exit."""
    gc.set_threshold(COLLECT_EVERY)
    open_what_is_closed()
    from mhnos_runtime.cli.main import run

    code = run()
    gc.freeze()  # else the interpreter's last collection looks at everything that is loaded
    sys.exit(code)


def open_what_is_closed() -> None:
    """Who starts this may have closed stdin, stdout or stderr (`>&-` of a shell). A connection would get that
    number, and what is meant for a person would go to the server: /dev/null takes its place."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(null := os.open(os.devnull, os.O_RDWR), fd)
            if null != fd:
                os.close(null)
            setattr(sys, name, open(fd, mode, encoding="utf-8", errors="replace"))  # noqa: SIM115 - as long as the process


if __name__ == "__main__":
    main()
