"""What somebody may do: grants, their scopes and limits, and the one check of them.

Knows nothing of requests, routes or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal, TypeAlias

from mhnos_runtime.errors import Refused


class Scope(StrEnum):
    """What a grant is good for. CONTROL has VIEW in it."""

    CONTROL = "control"
    VIEW = "view"
    FILES = "files"
    PREVIEW = "preview"
    METRICS = "metrics"


class Access(Enum):
    """What a row needs that needs no particular scope."""

    #: Nothing: a stranger may have it. Never for a WebSocket.
    OPEN = "open"
    #: A grant, whichever.
    GRANTED = "granted"
    #: The grant of the operator's own token.
    OPERATOR = "operator"


Need: TypeAlias = Scope | Access
#: How a grant was shown: in which part of a request, or "none" where none is needed.
Via: TypeAlias = Literal["header", "query", "subprotocol", "none"]
#: What a row is about as a whole, so that a grant limited to some of it does not do.
Whole: TypeAlias = Literal["", "processes", "paths"]

#: The principal of the one token. Those of stored grants have another form.
OPERATOR = "operator"
_IMPLIED = {Scope.CONTROL: frozenset({Scope.VIEW})}


class Forbidden(Refused):
    """Somebody is known, and may not do this."""

    code = "forbidden"


@dataclass(frozen=True, slots=True)
class Grant:
    """principal: who it is, "" for a stranger. processes: pids; paths: folders of the workspace; ports:
    numbers; None is all of them. read_only: files may be read and not changed. expires: seconds since the
    epoch, None for never. via: how it was shown."""

    principal: str
    scopes: frozenset[Scope]
    processes: frozenset[int] | None = None
    paths: tuple[str, ...] | None = None
    ports: frozenset[int] | None = None
    read_only: bool = False
    expires: float | None = None
    via: Via = "none"

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or any(scope in _IMPLIED.get(own, ()) for own in self.scopes)

    @property
    def known(self) -> bool:
        return bool(self.principal)

    def sees(self, pid: int) -> bool:
        """Whether there is such a process for its holder."""
        return self.processes is None or pid in self.processes

    def require(self, need: Need, whole: Whole = "", *, writes: bool = False) -> None:
        """The one check of a right. writes: files are changed. Raises Forbidden, which names what is
        missing."""
        if isinstance(need, Scope):
            if not self.allows(need):
                hint = f"a token with --scope {need} has it"
                raise Forbidden(f'This needs the scope "{need}", which this grant does not have', hint=hint)
        elif need is Access.OPERATOR and self.principal != OPERATOR:
            hint = "the token that mhnos-runtime token shows has it"
            raise Forbidden("This needs the operator's own token", hint=hint)
        elif need is Access.GRANTED and not self.known:
            raise Forbidden("This needs a grant")
        if writes and self.read_only:
            hint = "a token made without --read-only may"
            raise Forbidden("This changes files, and this grant is for reading only", hint=hint)
        if whole and getattr(self, whole) is not None:
            raise Forbidden(f"This needs a grant for all {whole}, and this one is limited to some")


#: The grant with everything.
EVERYTHING = Grant(OPERATOR, frozenset(Scope))
#: What a stranger has.
NOTHING = Grant("", frozenset())
