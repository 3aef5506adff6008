"""Refusals: what one is, and how many an address may have before it gets 429 instead of a reason.

Knows addresses and a clock, no requests.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from mhnos_runtime.config.address import normal_address
from mhnos_runtime.observe.limit import Limiter

# A person who mistypes a token does not get here; a 1.0 client with a stale one, every 5 s for ever, does.
REFUSALS = 10
WINDOW_SECONDS = 60.0
# Some 300 bytes each. Beyond, the address that was quiet for longest is forgotten.
MAX_ADDRESSES = 1024


@dataclass(frozen=True, slots=True)
class Refusal:
    """HTTP status, code and text of the error, seconds for Retry-After (0: none).

    report: whether to log it, with `unreported`, the number of refusals to this address that were not logged.
    """

    status: int
    code: str
    text: str
    hint: str = ""
    retry_after_s: int = 0
    report: bool = False
    unreported: int = 0


def rate_key(address: str) -> str:
    """What refusals are counted by: an IPv4 address, or an IPv6 /64, which is what one machine is given."""
    normal = normal_address(address)
    if normal is None:
        return "other"
    if ":" not in normal:
        return normal
    return str(ipaddress.ip_network((normal, 64), strict=False))


class _Address:
    """What is remembered of one address: when its last refusals were, and what was not logged of them."""

    __slots__ = ("reported_at", "times", "unreported")

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=REFUSALS)
        self.reported_at = float("-inf")
        self.unreported = 0


class Refusals:
    """Counts refusals by address, and says how each is to be answered and whether it is to be logged."""

    def __init__(self, clock: Callable[[], float], limiter: Limiter) -> None:
        self._clock = clock
        self._limiter = limiter
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def answer(self, key: str, refusal: Refusal) -> Refusal:
        now = self._clock()
        address = self._remembered(key)
        report = self._may_report(address, now)
        unreported, address.unreported = (address.unreported, 0) if report else (0, address.unreported + 1)
        wait = _wait(address.times, now)
        if wait > 0:
            refusal = Refusal(429, "rate-limited", "Too many refused requests", retry_after_s=ceil(wait))
        else:
            address.times.append(now)
        return replace(refusal, report=report, unreported=unreported)

    def _remembered(self, key: str) -> _Address:
        address = self._addresses.setdefault(key, _Address())
        self._addresses.move_to_end(key)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return address

    def _may_report(self, address: _Address, now: float) -> bool:
        if now - address.reported_at < WINDOW_SECONDS or not self._limiter.allow():
            return False
        address.reported_at = now
        return True


def _wait(times: deque[float], now: float) -> float:
    """Seconds until a further refusal gets its reason again; 0 or less: now."""
    return times[0] + WINDOW_SECONDS - now if len(times) == REFUSALS else 0.0
