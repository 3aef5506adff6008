"""The command `mhnos-runtime`, also as `python -m mhnos_runtime`: its process, from start to exit."""

from __future__ import annotations

import gc
import sys

#: Objects between two collections of garbage: more than are made by a verb that asks one thing.
COLLECT_EVERY = 50_000


def main() -> None:
    """Carry the command line out, and exit."""
    gc.set_threshold(COLLECT_EVERY)
    from mhnos_runtime.cli.main import run

    code = run()
    gc.freeze()  # else the interpreter's last collection looks at everything that is loaded
    sys.exit(code)


if __name__ == "__main__":
    main()
