"""From a request to a launch plan: data in, data out. Knows kinds and host facts; touches nothing itself."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mhnos_runtime.bounds import MAX_MS
from mhnos_runtime.engines import missing
from mhnos_runtime.errors import InvalidRequest, StartFailed
from mhnos_runtime.launch import FIRST_HANDED, Choice, LaunchPlan
from mhnos_runtime.process import template
from mhnos_runtime.process.kind import Kind

TERM = "xterm-256color"
#: Taken over from the server's own environment (protocol 1.0); nothing else is.
PASSED_THROUGH = ("LANG", "LC_ALL", "TZ", "DEBUG")
SHELLS = ("bash", "zsh", "fish", "dash", "ash", "ksh", "sh")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: What a shell takes for one word whatever stands around it.
_PATH = re.compile(r"[\w./+-]+")

#: Longest wall time, ms.
MAX_TIMEOUT_MS = MAX_MS


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of the machine. path: where programs are looked for. node: the Node.js that is new
    enough, or "", and then no_node says why. environment: the server's own, of which little is passed on."""

    path: str
    node: str
    no_node: str
    environment: Mapping[str, str]
    find: Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator has set. home: the workspace as processes see it."""

    home: str
    max_memory_bytes: int
    retention_bytes: int
    stall_ms: int
    kill_grace_ms: int


NOTHING_GIVEN = template.Values()
NOTHING_CHOSEN = Choice()


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for, its paths already resolved. watched: see LaunchPlan. notice: told to the user
    at the start of a shell. handed: how many descriptors come with the plan. given: ports, sockets, engines
    and the token that were found for it."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    pty: tuple[int, int] | None
    timeout_ms: int
    watched: bool = False
    notice: str = ""
    handed: int = 0
    given: template.Values = NOTHING_GIVEN


def plan(
    kind: Kind,
    request: Request,
    policy: Policy,
    host: Host,
    facts: dict[str, Any],
    choice: Choice = NOTHING_CHOSEN,
) -> LaunchPlan:
    """Raises StartFailed for a program that is not there, InvalidRequest for what no program can be given."""
    values = _values(kind, request, policy)
    result = LaunchPlan(
        argv=_argv(kind, request, values, host),
        env=_environment(kind, request, policy, host, values),
        pty=request.pty,
        retention_bytes=policy.retention_bytes,
        stall_ms=policy.stall_ms,
        watched=request.watched,
        timeout_ms=request.timeout_ms,
        escalation=_escalation(kind, request.pty is not None, max(policy.kill_grace_ms, kind.grace_ms)),
        choice=choice,
        handed=request.handed,
        control=kind.events,
        facts=facts,
    )
    _check(result)
    return result


def _values(kind: Kind, request: Request, policy: Policy) -> template.Values:
    return replace(
        request.given,
        command=request.command,
        args=request.args,
        memory_mb=policy.max_memory_bytes >> 20,
        home=policy.home,
        control=FIRST_HANDED + request.handed if kind.events else 0,
    )


def _environment(
    kind: Kind, request: Request, policy: Policy, host: Host, values: template.Values
) -> dict[str, str]:
    own = {name: host.environment[name] for name in PASSED_THROUGH if name in host.environment}
    return {
        "PATH": host.path,
        "HOME": policy.home,
        "USER": "mhnos",
        "NODE_ENV": "production",
        "TERM": TERM,
        "LANG": "C.UTF-8",
        **own,
        **{name: template.fill(text, values) for name, text in kind.env},
        **request.env,
    }


def _argv(kind: Kind, request: Request, values: template.Values, host: Host) -> tuple[str, ...]:
    if kind.command == "shell":
        return _shell_argv(request, host)
    program, *arguments = template.fill_all(kind.argv, values)
    return (_program(program, host), *arguments)


def _shell_argv(request: Request, host: Host) -> tuple[str, ...]:
    """A shell by name (or path: only its name counts), else a command line that a POSIX shell runs."""
    # "ls -l /bin/bash" ends like the path of a shell, and is none.
    name = os.path.basename(request.command) if _PATH.fullmatch(request.command) else ""
    if request.command and name not in SHELLS:
        argv = (_shell("sh", host), "-c", request.command, "sh", *request.args)
    else:
        arguments = request.args if request.args or request.pty is None else ("-i",)
        argv = (_shell(name or "bash", host), *arguments)
    if not request.notice:
        return argv
    announce = 'printf \'%s\\n\' "$0"; exec "$@"'
    return (_shell("sh", host), "-c", announce, request.notice, *argv)


def _shell(name: str, host: Host) -> str:
    found = host.find(name, host.path) or host.find("sh", host.path)
    if found is None:
        raise StartFailed("no shell on this machine", code="not-found", hint="install bash")
    return found


def _program(name: str, host: Host) -> str:
    if name == "node":
        if not host.node:
            raise missing("node", host.no_node)
        return host.node
    found = name if "/" in name else host.find(name, host.path)
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
