"""Work on files in small steps, so that whoever has it done can do something else in between, or give it up.

Knows generators; not what they do, and not who drives them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

#: Each `next` blocks for a few ms at most; what it returns at its end is the result.
Steps: TypeAlias = Generator[None, None, T]


class GivenUp(Exception):
    """Raised in steps whose result nobody wants any more. They may take further steps to clear up."""


def to_the_end(steps: Steps[T]) -> Steps[T]:
    """Steps that are not given up once they have begun."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            yield
        except GivenUp:
            pass
