"""Steps of work on files, taken one after the other, given up, or cut off as by the end of a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from mhnos_runtime.files.steps import GivenUp, Steps

T = TypeVar("T")


def drive(steps: Steps[T]) -> T:
    """What they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def give_up_after(steps: Steps[object], count: int) -> bool:
    """Whether they were given up, and had not ended before."""
    try:
        for _ in range(count):
            next(steps)
        steps.throw(GivenUp())
        drive(steps)
    except StopIteration:
        return False
    except GivenUp:
        return True
    return True


def paths(root: Path) -> list[str]:
    """All that is below a folder, sorted."""
    found = []
    for folder, directories, files in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in directories + files]
    return sorted(found)
