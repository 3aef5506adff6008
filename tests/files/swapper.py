"""A process that exchanges a folder of the workspace and a link that leads out of it, without pause.

`python -m tests.files.swapper ROOT` exchanges `swap` and `other` in ROOT. It prints a line when it has begun,
and how often it did when its standard input ends.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.files.test_confine_races import exchange


def main() -> None:
    root, ended, count = Path(sys.argv[1]), threading.Event(), 0

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    while not ended.is_set():
        exchange(root / "swap", root / "other")
        count += 1
        if count == 1:
            print(flush=True)
    print(count)


if __name__ == "__main__":
    main()
