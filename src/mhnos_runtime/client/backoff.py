"""How long to wait before the next attempt to connect. Arithmetic only; clock and dice come from outside."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Exponential with jitter: each delay is between half of and all of min(cap_s, first_s * 2**attempt).

    The lower half keeps many clients of one restarted server from trying at once yet never tries at once
    itself.
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
        """To be called when a connection has proved to be good."""
        self._attempt = 0
