"""What every benchmark is given: how thorough to be, and the peers that are there."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from .peers import PEERS, Peer, Unavailable

T = TypeVar("T")
OURS = "mhnos-runtime"


@dataclass
class Context:
    quick: bool
    missing: dict[str, str] = field(default_factory=dict)

    def pick(self, thorough: T, quick: T) -> T:
        return quick if self.quick else thorough

    @contextlib.contextmanager
    def peers(self, *names: str) -> Iterator[list[Peer]]:
        """The peers of these names, started; one that is not here is left out, and that is said."""
        with contextlib.ExitStack() as stack:
            started = []
            for name in names:
                try:
                    started.append(stack.enter_context(PEERS[name]()))
                except Unavailable as error:
                    self._tell(name, str(error))
            yield started

    def _tell(self, name: str, why: str) -> None:
        if name not in self.missing:
            self.missing[name] = why
            print(f"left out: {name}: {why}", file=sys.stderr)
