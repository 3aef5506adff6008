"""The floors of coverage: a line for each module, and what is said of one that fell. Knows no coverage.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

FILE = Path(__file__).with_name("floors.txt")
RECORD = "make coverage ARGS=--record"


def read(text: str) -> dict[str, int]:
    """Lines of "module percent"."""
    pairs = (line.split() for line in text.splitlines())
    return {module: int(percent) for module, percent in pairs}


def floor(percent: float) -> int:
    """In whole percent; one less below 100, since not each run takes the branches that depend on a race."""
    return math.floor(percent) if percent >= 100 else max(0, math.floor(percent) - 1)


def written(floors: Mapping[str, int]) -> str:
    """In the order of the names."""
    return "".join(f"{module} {floors[module]}\n" for module in sorted(floors))


def complaints(floors: Mapping[str, int], measured: Mapping[str, float]) -> Iterator[str]:
    """What is wrong, a line for each module."""
    for module, percent in sorted(measured.items()):
        if module not in floors:
            yield f"{module} has no floor; it is new, and at {math.floor(percent)} %: {RECORD}"
        elif percent < floors[module]:
            yield f"{module} fell from {floors[module]} % to {_down(percent):.1f} %: give it tests"
    for module in sorted(floors.keys() - measured.keys()):
        yield f"{module} has a floor and is not there: {RECORD}"


def _down(percent: float) -> float:
    """To one decimal, so that 99.99 is not shown as 100."""
    return math.floor(percent * 10) / 10


def risen(floors: Mapping[str, int], measured: Mapping[str, float]) -> list[str]:
    """Modules whose floor can be raised."""
    return [name for name, percent in sorted(measured.items()) if floor(percent) > floors.get(name, 100)]
