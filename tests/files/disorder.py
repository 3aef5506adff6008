"""A process that does with files what it likes: run with a seed, a number of operations and the outside."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

NAMES = "abcd"


def path(dice: random.Random, depth: int = 4) -> Path:
    return Path(*(dice.choice(NAMES) for _ in range(dice.randint(1, depth))))


def operate(dice: random.Random, outside: Path) -> None:
    """One operation; many fail, since what they need is not there."""
    one, other = path(dice), path(dice)
    match dice.randrange(14):
        case 0 | 1 | 2:
            write(one, os.O_TRUNC, "x" * dice.randint(0, 3))
        case 3:
            write(one, os.O_APPEND, "more")
        case 4:
            Path("new~").write_text(str(dice.random()))
            os.rename("new~", one)
        case 5 | 6:
            os.rename(one, other)
        case 7:
            os.makedirs(one)
            write(one / dice.choice(NAMES), 0, "deep")
        case 8:
            os.unlink(one)
        case 9:
            if one.is_dir():  # older Pythons open whatever is there, and wait at a FIFO
                shutil.rmtree(one)
        case 10:
            swap(one, other, outside)
        case 11:
            os.mkfifo(one)
        case 12:
            os.symlink(".", one)
        case 13:
            os.chmod(one, dice.choice((0o600, 0o700)))


def write(path: Path, flags: int, text: str) -> None:
    """Without waiting for a reader of a FIFO."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | flags, 0o644)
    os.write(fd, text.encode())
    os.close(fd)


def swap(one: Path, other: Path, outside: Path) -> None:
    """A directory goes outside, and a link there takes its place; or one comes from there."""
    if one.is_dir() and not one.is_symlink():
        os.rename(one, outside / "spare")
        os.symlink(outside, one)
        os.rename(outside / "spare", outside / other.name)
    else:
        os.rename(outside / one.name, other)


def main() -> None:
    dice, outside = random.Random(int(sys.argv[1])), Path(sys.argv[3])
    for _ in range(int(sys.argv[2])):
        try:
            operate(dice, outside)
        except OSError:
            pass


if __name__ == "__main__":
    main()
