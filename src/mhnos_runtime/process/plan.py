"""From a request to a launch plan: data in, data out. Knows kinds and the machine; touches nothing itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mhnos_runtime.bounds import MAX_MS
from mhnos_runtime.engines import missing
from mhnos_runtime.errors import InvalidRequest, StartFailed
from mhnos_runtime.launch import FIRST_HANDED, Choice, LaunchPlan
from mhnos_runtime.process import template, words
from mhnos_runtime.process.kind import Kind

TERM = "xterm-256color"
#: Taken over from the server's own environment (protocol 1.0); nothing else is.
PASSED_THROUGH = ("LANG", "LC_ALL", "TZ", "DEBUG")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Longest wall time, ms.
MAX_TIMEOUT_MS = MAX_MS


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the machine. path: the PATH of processes that are given no other. node: the Node.js
    that is new enough, or "", and then no_node says why. environment: the server's own, of which little is
    passed on. find: the path of a program by its name and a PATH, or None."""

    path: str
    node: str
    no_node: str
    environment: Mapping[str, str]
    find: Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """What of the operator's settings is in every plan. home: the workspace as processes see it."""

    home: str
    max_memory_bytes: int
    retention_bytes: int
    stall_ms: int
    kill_grace_ms: int


NOTHING_GIVEN = template.Values()
NOTHING_CHOSEN = Choice()


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """What a client asks for, with all that had to be looked up for it. watched: see LaunchPlan. banner: told
    to the user at the start of a shell. handed: how many descriptors come with the plan. given: ports,
    sockets, engines and the token that were found for it. within: see LaunchPlan."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    pty: tuple[int, int] | None
    timeout_ms: int
    watched: bool = False
    banner: str = ""
    handed: int = 0
    given: template.Values = NOTHING_GIVEN
    within: int = 0


def plan(
    kind: Kind,
    request: ResolvedRequest,
    settings: LaunchSettings,
    machine: Machine,
    facts: dict[str, Any],
    choice: Choice = NOTHING_CHOSEN,
) -> LaunchPlan:
    """Raises StartFailed for a program that is not there, InvalidRequest for what no program can be given."""
    values = _values(kind, request, settings)
    env = _environment(kind, request, settings, machine, values)
    result = LaunchPlan(
        argv=_argv(kind, request, values, machine, env["PATH"]),
        env=env,
        pty=request.pty,
        retention_bytes=settings.retention_bytes,
        stall_ms=settings.stall_ms,
        watched=request.watched,
        timeout_ms=request.timeout_ms,
        escalation=_escalation(kind, request.pty is not None, max(settings.kill_grace_ms, kind.grace_ms)),
        choice=choice,
        handed=request.handed,
        control=kind.events,
        within=request.within,
        facts=facts,
    )
    if request.within:
        result = replace(result, env=_on_top(result.env, kind, request))
    _check(result)
    return result


def _on_top(env: Mapping[str, str], kind: Kind, request: ResolvedRequest) -> dict[str, str]:
    """What of an environment is on top of that of the process that it is within."""
    of_kind = {name for name, _text in (*kind.env, *kind.piped_env)}
    own = of_kind.union(request.env, ("TERM",) if request.pty else ())
    return {name: text for name, text in env.items() if name in own}


def _values(kind: Kind, request: ResolvedRequest, settings: LaunchSettings) -> template.Values:
    return replace(
        request.given,
        command=request.command,
        args=request.args,
        memory_mb=settings.max_memory_bytes >> 20,
        home=settings.home,
        control=FIRST_HANDED + request.handed if kind.events else 0,
    )


def _environment(
    kind: Kind, request: ResolvedRequest, settings: LaunchSettings, machine: Machine, values: template.Values
) -> dict[str, str]:
    own = {name: text for name in PASSED_THROUGH if (text := machine.environment.get(name))}
    of_kind = dict((*kind.env, *(kind.piped_env if request.pty is None else ())))
    shell = _shell(kind, request, machine)
    # An empty value unsets what the kind gives: some programs look only whether a variable is there.
    unset = {name for name in (*of_kind, *shell) if request.env.get(name) == ""}
    env = {
        "PATH": machine.path,
        "HOME": settings.home,
        "USER": "mhnos",
        "TERM": TERM,
        "LANG": "C.UTF-8",
        **own,
        **shell,
        **{name: template.fill(text, values) for name, text in of_kind.items()},
        **request.env,
    }
    return {name: text for name, text in env.items() if name not in unset}


def _shell(kind: Kind, request: ResolvedRequest, machine: Machine) -> dict[str, str]:
    """tmux, vim and the like ask SHELL, and else the list of users, which names sh or, of a service, no
    shell at all."""
    if kind.command != "shell" or request.pty is None:
        return {}
    return {
        "SHELL": words.for_more(lambda name: machine.find(name, machine.path), request.command, request.args)
    }


def _argv(
    kind: Kind, request: ResolvedRequest, values: template.Values, machine: Machine, path: str
) -> tuple[str, ...]:
    if kind.command == "shell":
        # The machine's, whatever PATH the process gets: it is not the client's to choose.
        return words.argv(
            lambda name: machine.find(name, machine.path),
            request.command,
            request.args,
            terminal=request.pty is not None,
            banner=request.banner,
        )
    program, *arguments = template.fill_all(kind.argv, values)
    return (_program(program, machine, path or machine.path), *arguments)


def _program(name: str, machine: Machine, path: str) -> str:
    """path: the PATH that the process gets."""
    if name == "node":
        if not machine.node:
            raise missing("node", machine.no_node)
        return machine.node
    found = name if "/" in name else machine.find(name, path)
    if found is None:
        raise StartFailed(
            f"{name}: no such program on this machine", code="not-found", hint=f"install {name}"
        )
    return found


def _escalation(kind: Kind, terminal: bool, grace_ms: int) -> tuple[tuple[int, int], ...]:
    hang_up = ((min(kind.hang_up_ms, grace_ms), int(signal.SIGHUP)),) if terminal else ()
    return (*hang_up, (grace_ms, int(signal.SIGKILL)))


def _check(result: LaunchPlan) -> None:
    for name, value in result.env.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidRequest(f"not a variable of an environment: {name!r}")
    if any("\0" in item for item in result.argv):
        raise InvalidRequest("a NUL character in the command or its arguments")
    try:
        for item in (*result.argv, *result.env, *result.env.values()):
            item.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("command, arguments or environment are not Unicode text") from error
