"""A server's requests, typed. Every field is checked, since the server parses network data and may have been
taken over.

Knows the form of messages; not processes, and not the operator's policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mhnos_runtime import bounds
from mhnos_runtime.channel import encode
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.launch import DECIDED, FORBIDDEN_PLAN, MAX_HANDED, REASONS, LaunchPlan
from mhnos_runtime.supervisor.shape import BadShape, checker

#: Ranges of a launch plan's numbers, if not 0 or more. Milliseconds: the range of a timer.
RANGES = {
    "LaunchPlan.pty": (0, bounds.MAX_CELLS),
    "LaunchPlan.retention_bytes": (0, bounds.MAX_RETENTION_BYTES),
    "LaunchPlan.stall_ms": (0, bounds.MAX_MS),
    "LaunchPlan.timeout_ms": (0, bounds.MAX_MS),
    "LaunchPlan.escalation": (0, bounds.MAX_MS),
    "LaunchPlan.handed": (0, MAX_HANDED),
    "LaunchPlan.within": (0, bounds.MAX_PID),
}
#: Signals in an escalation.
MAX_STEPS = 16


class BadRequest(InvalidRequest):
    """A message that no correct server sends. request: of a spawn, its number, else None."""

    request: int | None = None


@dataclass(frozen=True, slots=True)
class Spawn:
    request: int
    plan: LaunchPlan


@dataclass(frozen=True, slots=True)
class Kill:
    """reason: see launch.REASONS."""

    pid: int
    signal: int
    reason: str
    escalate: bool


@dataclass(frozen=True, slots=True)
class CloseStdin:
    pid: int


@dataclass(frozen=True, slots=True)
class Size:
    pid: int
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Note:
    """found: what changes of a process's facts: any JSON that is not nested deeply."""

    pid: int
    found: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Forget:
    pid: int


@dataclass(frozen=True, slots=True)
class Discard:
    """The server could not take this process over."""

    pid: int


@dataclass(frozen=True, slots=True)
class Token:
    """What the next server needs to know of the token."""

    token: dict[str, Any] | None


#: Requests that do nothing if the process does not exist.
AboutProcess: TypeAlias = Kill | CloseStdin | Size | Note | Forget | Discard
Request: TypeAlias = Spawn | AboutProcess | Token

_OTHER_RANGES = {
    "Kill.signal": (1, bounds.MAX_SIGNAL),
    "Size.columns": (0, bounds.MAX_CELLS),
    "Size.rows": (0, bounds.MAX_CELLS),
}
_others: dict[str, type[AboutProcess | Token]] = {
    "kill": Kill,
    "close_stdin": CloseStdin,
    "size": Size,
    "note": Note,
    "forget": Forget,
    "discard": Discard,
    "token": Token,
}
_PIDS = {f"{kind.__name__}.pid": (0, bounds.MAX_PID) for kind in _others.values()}
_checks = {name: checker(kind, {**_OTHER_RANGES, **_PIDS}) for name, kind in _others.items()}
_check_plan = checker(LaunchPlan, RANGES, without=DECIDED)


def parse(body: Mapping[str, Any]) -> Request:
    """Raises BadRequest for a message that a server of this version would not send."""
    values = dict(body)
    name = values.pop("do", None)
    if name == "spawn":
        return _spawn(values)
    if not isinstance(name, str) or name not in _others:
        raise BadRequest(f"unknown request {str(name)[:40]!r}")
    try:
        _checks[name](values, name)
    except BadShape as error:
        raise BadRequest(str(error)) from None
    if name == "kill" and values["reason"] not in REASONS:
        raise BadRequest("kill.reason is unknown")
    if name == "token" and len(encode(values)) > bounds.TOKEN_BYTES:
        raise BadRequest(f"token takes more than {bounds.TOKEN_BYTES} bytes")
    return _others[name](**values)


def _spawn(body: dict[str, Any]) -> Spawn:
    request = body.get("request")
    if type(request) is not int or not 0 <= request <= 2**63 - 1:
        raise BadRequest("spawn.request is not a number")
    try:
        return Spawn(request, _plan(body.get("plan")))
    except BadRequest as error:
        error.request = request
        raise


def _plan(data: Any) -> LaunchPlan:
    said = [name for name in DECIDED if isinstance(data, dict) and name in data]
    if said:
        raise BadRequest(
            f"the plan has {' and '.join(said)}, which only the supervisor decides", code=FORBIDDEN_PLAN
        )
    try:
        _check_plan(data, "plan")
    except BadShape as error:
        raise BadRequest(str(error)) from None
    _check_sense(data)
    _check_facts(data["facts"])
    return LaunchPlan.from_request(data)


def _check_sense(data: dict[str, Any]) -> None:
    """Rules beyond types and ranges."""
    if not data["argv"]:
        raise BadRequest("plan.argv is empty")
    steps = data["escalation"]
    if len(steps) > MAX_STEPS or not all(0 < number <= bounds.MAX_SIGNAL for _delay, number in steps):
        raise BadRequest(f"plan.escalation is not a list of at most {MAX_STEPS} signals")


def _check_facts(facts: dict[str, Any]) -> None:
    size = len(encode(facts))
    if size > bounds.FACTS_BYTES:
        raise BadRequest(
            f"the facts of the request take {size} bytes, {bounds.FACTS_BYTES} are allowed",
            code="too-large",
        )


def with_found(facts: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The facts about a process, updated with those that were found. Raises BadRequest if they do not fit
    into a record."""
    together = {**facts, **found}
    size, most = len(encode(together)), bounds.FACTS_BYTES + bounds.FOUND_BYTES
    if size > most:
        raise BadRequest(f"the facts about a process take {size} bytes, {most} are allowed")
    return together
