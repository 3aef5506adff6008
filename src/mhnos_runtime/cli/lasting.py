"""Work on a blocking connection that goes on with the next one when the server restarts. Knows no verb."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.discovery import Target

T = TypeVar("T")

#: A restart or reload of the server takes a second or two, on a busy machine ten.
GIVE_UP_S = 30.0
POLL_S = 0.2
#: A server that ends each connection at once has a defect that the work meets: it is not asked for ever.
SOON_S, MAX_LOSSES = 1.0, 5


def lasting(
    target: Target,
    work: Callable[[Direct], T],
    told: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """What `work` returns; it is called anew on each connection. told: what is said of a lost one. pause:
    waits so many seconds between two attempts, and may raise what ends them.

    Raises what Direct.open raises, where nobody answers for GIVE_UP_S, and what `work` raises; ConnectionLost
    where MAX_LOSSES connections in a row did not last.
    """
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.errors import ConnectionLost

    runtime, losses = Direct.open(target), 0
    while True:
        began = time.monotonic()
        with runtime:
            try:
                return work(runtime)
            except ConnectionLost:
                losses = losses + 1 if time.monotonic() - began < SOON_S else 0
                if losses >= MAX_LOSSES:
                    raise
        told("connection lost, reconnecting...")
        runtime = _opened_again(target, pause)
        told("resumed")


def _opened_again(target: Target, pause: Callable[[float], None]) -> Direct:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.errors import ConnectFailed

    until = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return Direct.open(target)
        except ConnectFailed as error:
            if not error.retry or time.monotonic() >= until:
                raise
        pause(POLL_S)
