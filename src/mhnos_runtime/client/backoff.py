"""Exponential backoff between attempts to connect. Arithmetic only: it reads no clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Exponential with jitter: each delay is between half of and all of min(cap_s, first_s * 2**attempt).

    The jitter spreads the clients of a server that was restarted. `dice`: a number from 0 to 1.
    """

    first_s: float = 0.1
    cap_s: float = 10.0
    dice: Callable[[], float] = random.random
    _attempt: int = field(default=0, init=False)

    def next_delay_s(self) -> float:
        """Seconds to wait now; the one after is longer."""
        ceiling_s = min(self.cap_s, self.first_s * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return ceiling_s * (0.5 + self.dice() / 2)

    def reset(self) -> None:
        """Start anew: a connection has lasted."""
        self._attempt = 0
