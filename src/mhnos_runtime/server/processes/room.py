"""The server's reserve of descriptors: clients leave some for starts, and starts leave some for /health.

Whoever is to keep descriptors open for long asks here first. Only what is open at that moment counts.
"""

from __future__ import annotations

import resource

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.proc import free_descriptors

#: For connections without a right token, /health among them (256 at most, see server/http/door.py), and for
#: files that are open for a moment.
HEALTH_DESCRIPTORS = 272
#: For one start: the folder, a socket or two that it hands over; then log, mapping, input, control socket.
START_DESCRIPTORS = 8
#: Starts for which clients leave room.
KEPT_STARTS = 10


def for_client() -> bool:
    """Whether one more client may be let in. Of a very low limit, clients get half all the same."""
    kept = HEALTH_DESCRIPTORS + KEPT_STARTS * START_DESCRIPTORS
    return free_descriptors() > min(kept, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def check_start(starting: int) -> None:
    """starting: how many starts are under way, this one included. Raises LimitReached (start-failed)."""
    kept = min(HEALTH_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    if free_descriptors() < kept + starting * START_DESCRIPTORS:
        raise none_left()


def none_left() -> LimitReached:
    return LimitReached(
        "the server has no descriptors left for another process",
        code="start-failed",
        hint="end some processes, close some connections, or raise the limit of open files (LimitNOFILE)",
    )
