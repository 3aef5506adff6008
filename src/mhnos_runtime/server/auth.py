"""Who is let in: one decision over facts of a request.

Knows no HTTP library, and opens nothing but (through its TokenStore) the token's file.

The order is Host, Origin, token, so that a refusal for one of the first two says nothing about the token.

- Host: exactly one, and a loopback name or the address connected to with this server's port, or one of
  allow_host. A page whose own name was made to point here (DNS rebinding) still sends its own name.
- Origin: when there is one, this server's own or one of allow_origin. Only browsers send one.
- Token: Bearer header, ?token= or subprotocol mhnos.token.<token>; of several that are shown each must be
  right, so that a wrong one is found rather than covered up.
- GET and HEAD of /health need no token: it tells no more than how long the server runs and how many processes
  it has, and what restarts or balances servers has no token to show. It keeps the other two checks, which
  cost such a client nothing: it sends no Origin, and the address it connects to as Host. A WebSocket is
  never exempt.
- auth none leaves the other checks as they are, and lets in only peers on this machine.

Refusals are counted by address. Who has had too many in a minute gets 429 instead of a reason. A right token
is let in all the same, since a client with a stale token, retrying for ever, may share its address with
others; it takes one hash to tell, and 256 bits cannot be guessed.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from mhnos_runtime.config.address import (
    DEFAULT_PORTS,
    HostPort,
    is_any_address,
    is_loopback,
    normal_address,
    parse_host,
    parse_origin,
)
from mhnos_runtime.observe.limit import Limiter
from mhnos_runtime.observe.redact import redact
from mhnos_runtime.wire.messages import TOKEN_SUBPROTOCOL_PREFIX

__all__ = ["Gate", "RequestFacts", "Verdict", "redact"]

OPEN_PATH = "/health"

# A person who mistypes a token does not get here; a 1.0 client with a stale one, every 5 s for ever, does.
REFUSALS = 10
WINDOW_SECONDS = 60.0
# Some 300 bytes each. Beyond, the address that was quiet for longest is forgotten.
MAX_ADDRESSES = 1024


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the decision depends on. Headers are as received, an item for each time they came; subprotocols
    are the items of theirs.

    remote_address: the peer's, "" if it has none. local_address: the one it connected to. query_tokens:
    decoded values of ?token=. scheme: http or https (ws and wss count as these). path: decoded, without
    query. upgrade: whether a WebSocket is asked for.
    """

    remote_address: str
    hosts: tuple[str, ...]
    origins: tuple[str, ...] = ()
    authorizations: tuple[str, ...] = ()
    query_tokens: tuple[str, ...] = ()
    subprotocols: tuple[str, ...] = ()
    local_address: str = ""
    scheme: str = "http"
    method: str = "GET"
    path: str = "/"
    upgrade: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """allowed, or a refusal: HTTP status, code and text of the error, seconds for Retry-After (0: none).

    known: whether a right token was shown, or none is needed; else what was asked for is open to strangers.
    report: whether to log it, with `unreported`, the number of refusals to this address that were not logged.
    """

    allowed: bool
    known: bool = False
    status: int = 200
    code: str = ""
    text: str = ""
    hint: str = ""
    retry_after_s: int = 0
    report: bool = False
    unreported: int = 0


class GateSettings(Protocol):
    """What of the settings matters here; `config.Settings` has it."""

    @property
    def host(self) -> str: ...
    @property
    def auth(self) -> str: ...
    @property
    def allow_origin(self) -> tuple[str, ...]: ...
    @property
    def allow_host(self) -> tuple[str, ...]: ...


class Tokens(Protocol):
    @property
    def in_force(self) -> bool: ...
    def matches(self, candidate: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    code: str
    text: str
    hint: str = ""


_ALLOWED = Verdict(allowed=True, known=True)
_OPEN = Verdict(allowed=True)


class Gate:
    """Decides for each request. port: the one that is listened on (a setting of 0 is not it).

    clock: monotonic seconds. limiter: of the lines of all that strangers cause.
    """

    def __init__(
        self,
        settings: GateSettings,
        port: int,
        tokens: Tokens,
        clock: Callable[[], float],
        limiter: Limiter,
    ) -> None:
        self._bound = settings.host
        self._port = port
        self._open = settings.auth == "none"
        self._origins = frozenset(settings.allow_origin)
        self._hosts = frozenset(entry for text in settings.allow_host if (entry := parse_host(text)))
        self._tokens = tokens
        self._refusals = _Refusals(clock, limiter)

    def check(self, facts: RequestFacts) -> Verdict:
        is_open = facts.path == OPEN_PATH and facts.method in ("GET", "HEAD") and not facts.upgrade
        refusal = self._host_refusal(facts) or self._origin_refusal(facts)
        if refusal is None and not is_open:
            refusal = self._token_refusal(facts)
        if refusal is None:
            return _OPEN if is_open else _ALLOWED
        return self._refusals.answer(rate_key(facts.remote_address), refusal)

    def _host_refusal(self, facts: RequestFacts) -> _Refusal | None:
        if len(facts.hosts) != 1:
            # RFC 9112, 3.2: a server must answer 400 to none or several.
            return _Refusal(400, "forbidden-host", "Expected exactly one Host header")
        host = parse_host(facts.hosts[0])
        if host is None:
            return _Refusal(400, "forbidden-host", "Host header is malformed")
        if self._is_own(host, facts) or HostPort(host.host, None) in self._hosts or host in self._hosts:
            return None
        hint = f"reach it by a loopback name and port {self._port}, or start it with --allow-host {host}"
        return _Refusal(421, "forbidden-host", "This server does not go by that Host", hint)

    def _is_own(self, host: HostPort, facts: RequestFacts) -> bool:
        port = DEFAULT_PORTS.get(facts.scheme) if host.port is None else host.port
        return port == self._port and (is_loopback(host.host) or self._is_address(host.host, facts))

    def _is_address(self, host: str, facts: RequestFacts) -> bool:
        """Whether it is what is listened on: as set, or as the address of this machine that was connected to.

        A wildcard is no address that a client can mean, although browsers connect to it.
        """
        return host in (self._bound, normal_address(facts.local_address)) and not is_any_address(host)

    def _origin_refusal(self, facts: RequestFacts) -> _Refusal | None:
        if not facts.origins:
            return None
        origin = parse_origin(facts.origins[0]) if len(facts.origins) == 1 else None
        if origin is not None and (origin in self._origins or origin == _own_origin(facts)):
            return None
        hint = f"start the server with --allow-origin {origin}" if origin else ""
        return _Refusal(403, "forbidden-origin", "Pages of this origin may not connect", hint)

    def _token_refusal(self, facts: RequestFacts) -> _Refusal | None:
        if self._open:
            return (
                None
                if _is_local(facts.remote_address)
                else _Refusal(401, "unauthorized", "Only local clients")
            )
        shown = shown_tokens(facts)
        if shown and all(self._tokens.matches(token) for token in shown):
            return None
        if not self._tokens.in_force:
            hint = "its log says why; mhnos-runtime token --rotate makes a new one"
            return _Refusal(401, "unauthorized", "No token is in force: its file cannot be used", hint)
        hint = "mhnos-runtime token shows it; send it as Authorization: Bearer, ?token= or a subprotocol"
        return _Refusal(401, "unauthorized", "The token is wrong" if shown else "A token is needed", hint)


def _own_origin(facts: RequestFacts) -> str | None:
    """The origin of a page that this server would have sent under the Host that was asked for."""
    scheme = {"ws": "http", "wss": "https"}.get(facts.scheme, facts.scheme)
    return parse_origin(f"{scheme}://{facts.hosts[0]}")


def _is_local(address: str) -> bool:
    normal = normal_address(address)
    return normal is not None and is_loopback(normal)


def shown_tokens(facts: RequestFacts) -> set[str]:
    """Every token that a request shows. An Authorization of another scheme is for somebody in between."""
    bearer = [value[7:].strip() for value in facts.authorizations if value[:7].lower() == "bearer "]
    offered = [
        item.removeprefix(TOKEN_SUBPROTOCOL_PREFIX)
        for item in facts.subprotocols
        if item.startswith(TOKEN_SUBPROTOCOL_PREFIX)
    ]
    return {*bearer, *facts.query_tokens, *offered}


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


class _Refusals:
    """Counts refusals by address, and says how each is to be answered and whether it is to be logged."""

    def __init__(self, clock: Callable[[], float], limiter: Limiter) -> None:
        self._clock = clock
        self._limiter = limiter
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def answer(self, key: str, refusal: _Refusal) -> Verdict:
        now = self._clock()
        address = self._remembered(key)
        report = self._may_report(address, now)
        unreported, address.unreported = (address.unreported, 0) if report else (0, address.unreported + 1)
        wait = _wait(address.times, now)
        if wait > 0:
            text = "Too many refused requests"
            return Verdict(False, False, 429, "rate-limited", text, "", ceil(wait), report, unreported)
        address.times.append(now)
        return Verdict(
            False, False, refusal.status, refusal.code, refusal.text, refusal.hint, 0, report, unreported
        )

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
