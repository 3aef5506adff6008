"""Who is let in: one decision over facts of a request, a grant or a refusal.

Knows no HTTP library, and opens nothing but (through its tokens) the token's file.

The order is Host, Origin, token, so that a refusal for one of the first two says nothing about the token.

- Host: exactly one, and a loopback name with any port (a forwarded port has another number than the one that
  is listened on), the address connected to with this server's port, or one of allow_host. A page whose own
  name was made to point here (DNS rebinding) still sends its own name.
- Origin: when there is one, this server's own or one of allow_origin. Only browsers send one. The own one is
  that of the Host as sent, port included: a page of another port of loopback asks for another Host than its
  own, so it is refused, and a page whose own Host leads here came from here.
- Token: Bearer header, ?token= or subprotocol mhnos.token.<token>; of several that are shown each must be
  right, so that a wrong one is found rather than covered up, and all must be of one grant.
- A row of the routes that is open needs no token: /health tells no more than how long the server runs and how
  many processes it has, and what restarts or balances servers has no token to show. It keeps the other two
  checks, which cost such a client nothing: it sends no Origin, and the address it connects to as Host.
- auth none leaves the other checks as they are, and lets in only peers on this machine.

Refusals are counted by address. Who has had too many in a minute gets 429 instead of a reason. A right token
is let in all the same, since a client with a stale token, retrying for ever, may share its address with
others; it takes one hash to tell, and 256 bits cannot be guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

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
from mhnos_runtime.server.auth.grants import EVERYTHING, NOTHING, Grant, Via
from mhnos_runtime.server.auth.refusals import Refusal, Refusals, rate_key
from mhnos_runtime.wire.messages import TOKEN_SUBPROTOCOL_PREFIX

Outcome: TypeAlias = Grant | Refusal


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the decision depends on. Headers are as received, an item for each time they came; subprotocols
    are the items of theirs.

    remote_address: the peer's, "" if it has none. local_address: the one it connected to. query_tokens:
    decoded values of ?token=. scheme: http or https (ws and wss count as these). open: whether strangers may
    have what is asked for.
    """

    remote_address: str
    hosts: tuple[str, ...]
    origins: tuple[str, ...] = ()
    authorizations: tuple[str, ...] = ()
    query_tokens: tuple[str, ...] = ()
    subprotocols: tuple[str, ...] = ()
    local_address: str = ""
    scheme: str = "http"
    open: bool = False


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
    """All tokens that there are. in_force: whether the operator's is one of them."""

    @property
    def in_force(self) -> bool: ...
    def find(self, candidate: str) -> Grant | None:
        """What this token grants."""


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
        self._refusals = Refusals(clock, limiter)

    def check(self, facts: RequestFacts) -> Outcome:
        """Whose request it is. A stranger has NOTHING, where that will do."""
        outcome = self._host_refusal(facts) or self._origin_refusal(facts) or self._grant(facts)
        if isinstance(outcome, Refusal):
            return self._refusals.answer(rate_key(facts.remote_address), outcome)
        return outcome

    def reader(self, facts: RequestFacts) -> str | None:
        """The Origin, as it was sent, whose pages may read the answer, also where that is a refusal: one of
        allow_origin, or this server's own under a Host that is right."""
        origin = _origin(facts)
        own = origin is not None and origin == _own_origin(facts) and self._host_refusal(facts) is None
        return facts.origins[0] if own or origin in self._origins else None

    def _host_refusal(self, facts: RequestFacts) -> Refusal | None:
        if len(facts.hosts) != 1:
            # RFC 9112, 3.2: a server must answer 400 to none or several.
            return Refusal(400, "forbidden-host", "Expected exactly one Host header")
        host = parse_host(facts.hosts[0])
        if host is None:
            return Refusal(400, "forbidden-host", "Host header is malformed")
        if self._is_own(host, facts) or HostPort(host.host, None) in self._hosts or host in self._hosts:
            return None
        hint = f"reach it by a loopback name, or {_allowing('allow_host', str(host))}"
        return Refusal(421, "forbidden-host", "This server does not go by that Host", hint)

    def _is_own(self, host: HostPort, facts: RequestFacts) -> bool:
        """Names under localhost lead here by this server's port only: they are for what processes serve."""
        if is_loopback(host.host) and not host.host.endswith(".localhost"):
            return True
        port = DEFAULT_PORTS.get(facts.scheme) if host.port is None else host.port
        return port == self._port and (is_loopback(host.host) or self._is_address(host.host, facts))

    def _is_address(self, host: str, facts: RequestFacts) -> bool:
        """Whether the runtime listens on it: as set, or as the address of this machine that was connected to.

        A wildcard is no address that a client can mean, although browsers connect to it.
        """
        return host in (self._bound, normal_address(facts.local_address)) and not is_any_address(host)

    def _origin_refusal(self, facts: RequestFacts) -> Refusal | None:
        origin = _origin(facts)
        if not facts.origins or origin in self._origins or (origin and origin == _own_origin(facts)):
            return None
        hint = _allowing("allow_origin", origin) if origin else ""
        return Refusal(403, "forbidden-origin", "Pages of this origin may not connect", hint)

    def _grant(self, facts: RequestFacts) -> Outcome:
        if facts.open:
            return NOTHING
        if self._open:
            local = _is_local(facts.remote_address)
            return EVERYTHING if local else Refusal(401, "unauthorized", "Only local clients")
        shown = shown_tokens(facts)
        grant = self._grant_of(shown)
        if grant is not None:
            return grant
        if not self._tokens.in_force:
            hint = "its log says why; mhnos-runtime token --rotate makes a new one"
            return Refusal(401, "unauthorized", "No token is in force: its file cannot be used", hint)
        hint = (
            "mhnos-runtime token shows it on the server's machine; the command line takes --token-file or "
            "MHNOS_TOKEN, programs send Authorization: Bearer, pages a subprotocol"
        )
        return Refusal(401, "unauthorized", "The token is wrong" if shown else "A token is needed", hint)

    def _grant_of(self, shown: dict[str, Via]) -> Grant | None:
        """The one grant that all of these are tokens of."""
        found: Grant | None = None
        for token, via in shown.items():
            grant = self._tokens.find(token)
            if grant is None or (found is not None and found.principal != grant.principal):
                return None
            found = found or replace(grant, via=via)
        return found


def _allowing(setting: str, value: str) -> str:
    """What the operator can do, with and without ending anything."""
    flag = setting.replace("_", "-")
    return f'reload it with {setting} = ["{value}"] in its configuration, or start it with --{flag} {value}'


def _origin(facts: RequestFacts) -> str | None:
    """The one origin of a request in canonical form; None where there is none, or more than one."""
    return parse_origin(facts.origins[0]) if len(facts.origins) == 1 else None


def _own_origin(facts: RequestFacts) -> str | None:
    """The origin of a page that this server would have sent under the Host that was asked for."""
    if len(facts.hosts) != 1:
        return None
    scheme = {"ws": "http", "wss": "https"}.get(facts.scheme, facts.scheme)
    return parse_origin(f"{scheme}://{facts.hosts[0]}")


def _is_local(address: str) -> bool:
    normal = normal_address(address)
    return normal is not None and is_loopback(normal)


def shown_tokens(facts: RequestFacts) -> dict[str, Via]:
    """Every token that a request shows, and where. An Authorization of another scheme is for somebody in
    between."""
    shown: dict[str, Via] = {}
    for value in facts.authorizations:
        if value[:7].lower() == "bearer ":
            shown.setdefault(value[7:].strip(), "header")
    for token in facts.query_tokens:
        shown.setdefault(token, "query")
    for item in facts.subprotocols:
        if item.startswith(TOKEN_SUBPROTOCOL_PREFIX):
            shown.setdefault(item.removeprefix(TOKEN_SUBPROTOCOL_PREFIX), "subprotocol")
    return shown
