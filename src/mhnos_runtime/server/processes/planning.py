"""From a client's request to what the supervisor starts: kind, folder, policy, engines, ports, launch plan.

Opens what the process is handed; starts nothing, and knows no table of processes.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from mhnos_runtime import bounds
from mhnos_runtime.config import Settings
from mhnos_runtime.errors import InvalidRequest, NotFound, StartFailed
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.launch import Choice, Hello, LaunchPlan, StartDescriptors, Wish
from mhnos_runtime.process import kinds, names, plan, ready, template, workerd
from mhnos_runtime.process.facts import Limits, ProcessFacts, Secrets, SpawnKey
from mhnos_runtime.process.kind import Kind, Script
from mhnos_runtime.process.table import Process
from mhnos_runtime.process.words import is_interactive
from mhnos_runtime.sandbox import Allowed, Policy, describe, narrow, view
from mhnos_runtime.server.processes.engine_access import EngineAccess
from mhnos_runtime.server.processes.keys import digest
from mhnos_runtime.server.processes.listening import Listening, listening, open_ports
from mhnos_runtime.server.processes.ports import Handed, check_names
from mhnos_runtime.server.processes.programs import Programs
from mhnos_runtime.server.processes.start_context import WorkspaceContext
from mhnos_runtime.wire import messages as m

DEFAULT_SIZE = (m.DEFAULT_COLS, m.DEFAULT_ROWS)


@dataclass(frozen=True, slots=True)
class Start:
    """What the supervisor is sent. `Planner.prepare` closes the descriptors at its end."""

    plan: LaunchPlan
    descriptors: StartDescriptors


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as its kind takes it. ports: numbers asked for by name. host: what it is to be within."""

    kind: Kind
    request: m.Spawn
    args: tuple[str, ...]
    ports: Mapping[str, int]
    host: Process | None = None


class Folder(NamedTuple):
    """A working directory. path: in the workspace. banner: of a shell that starts in another one, or ""."""

    path: str
    fd: int
    banner: str = ""


class Planner:
    """Plans starts by the operator's settings and what this machine has."""

    def __init__(self, settings: Settings, hello: Hello, workspace: Workspace) -> None:
        self._settings = settings
        self._workspace = workspace
        self._kinds = kinds.all_kinds(settings.kinds)
        self._allowed = Allowed.from_dict(hello.allowed)
        self._sandbox = self._allowed.sandbox
        self._engines = EngineAccess(settings.engines_dir, self._sandbox.policy.user)
        self._programs = Programs(workspace, self._sandbox)
        seen = view(self._sandbox, hello.path)
        path = self._with_node(seen.path, hello.node)
        self._machine = plan.Machine(path, hello.node, hello.no_node, os.environ, self._programs.find)
        self._launch_settings = plan.LaunchSettings(
            home=seen.workspace,
            max_memory_bytes=settings.max_memory,
            retention_bytes=settings.retention_bytes,
            stall_ms=round(settings.stall_seconds * 1000),
            kill_grace_ms=round(settings.kill_grace_seconds * 1000),
        )

    def _with_node(self, path: str, node: str) -> str:
        """A PATH on which `node` is that of the kind node, and npm the one beside it."""
        if not node or self._programs.find("node", path) == node:
            return path
        return f"{posixpath.dirname(node)}:{path}"

    def asked(self, request: m.Spawn, host: Process | None = None) -> Asked:
        """Find the kind of a request and have it read the command. host: the process that it is to be within.

        Raises Refused and InvalidRequest (unknown-kind, invalid-argument, too-large).
        """
        _check_size(request)
        if request.name is not None:
            names.check(request.name)
        if host is not None and (request.network is not None or request.limits is not None):
            raise InvalidRequest(
                f"network and limits are those of process {host.pid}, which this one is to be within",
                hint="leave them out, or start it on its own",
            )
        name, ports = request.process_type, dict(request.ports or {})
        check_names(ports)
        found = self._kinds.get(name)
        if found is None:
            raise InvalidRequest(
                f"Unknown process type: {name}",
                code="unknown-kind",
                hint=f"use one of {', '.join(self._kinds)}",
            )
        found.hooks.check_allowed(self._settings)
        interpreted = found.hooks.interpret(found, request.command, tuple(request.args))
        return Asked(interpreted.kind, request, interpreted.args, {**interpreted.ports, **ports}, host)

    @contextlib.contextmanager
    def prepare(self, asked: Asked, environment: Mapping[str, str], dry: bool = False) -> Iterator[Start]:
        """Open what the process is handed, for as long as the context lasts, and plan the rest.

        environment: variables, which those of the request override. dry: write nothing into the workspace.
        Raises MhnosError with a code for whatever is wrong, and OSError without descriptors.
        """
        folder = self._folder(asked)
        handed = Handed()
        try:
            launch = self._plan(asked, folder, handed, environment, dry)
            yield Start(launch, StartDescriptors(folder.fd, tuple(handed.descriptors)))
        finally:
            os.close(folder.fd)
            handed.close()

    def worker_config(self, request: m.WorkerConfig) -> str:
        """The config that a spawn of the same script would run. Raises as `prepare`."""
        if not workerd.is_script(request.command):
            raise InvalidRequest(f"{request.command!r} is no worker script; expected a .js or .mjs file")
        cwd = self._workspace.normalise(request.options.cwd or "/")
        policy = narrow(self._sandbox.policy, Wish(network=request.network))
        context = self._context(cwd, policy, Handed(), dry=True)
        script = Script(request.command, context.real(request.command), request.worker)
        return workerd.generate(script, context)

    def _plan(
        self, asked: Asked, folder: Folder, handed: Handed, environment: Mapping[str, str], dry: bool
    ) -> LaunchPlan:
        kind, request, host = asked.kind, asked.request, asked.host
        policy = self._policy(kind, request) if host is None else self._policy_of(host)
        engines = self._engines.programs(kind.templates)
        outside = policy.level == "none" or policy.network == "host"
        context = self._context(folder.path, policy, handed, dry)
        command, named = _command(asked, context)
        kind.hooks.check(command, asked.args, context)
        open_ports(kind, asked.ports, named, handed, outside)
        token = secrets.token_urlsafe(32) if any("{token}" in text for text in kind.templates) else ""
        kind.hooks.write_files(context)
        given = request.options.env or {}
        resolved = plan.ResolvedRequest(
            command=command,
            args=asked.args,
            env={**environment, **kind.hooks.variables(context, given), **given},
            pty=_terminal(kind, request.pty),
            timeout_ms=_timeout_ms(request.options.timeout),
            watched=request.attach,
            banner=folder.banner,
            handed=len(handed.descriptors),
            within=0 if host is None else host.pid,
            given=template.Values(
                token=token, ports=handed.ports, sockets=handed.sockets, named=named, engines=engines
            ),
        )
        facts = self._facts(asked, folder.path, policy, listening(kind, handed, outside), token)
        if host is not None:
            if handed.sockets and not outside:
                raise InvalidRequest(
                    f"{kind.name} gets sockets of the machine, and process {host.pid} is in another network",
                    hint="start it on its own",
                )
            choice = Choice(cwd=folder.path)
        else:
            choice = Choice(_narrowed(policy), folder.path, self._engines.folders())
        find = partial(self._programs.find, cwd=folder.path)
        machine = replace(self._machine, find=find)
        launch = plan.plan(kind, resolved, self._launch_settings, machine, facts.to_plain(), choice)
        if host is not None:
            return launch  # the supervisor knows how that process is confined
        return self._allowed.confined(launch, handed_sockets=bool(handed.sockets))

    def _policy(self, kind: Kind, request: m.Spawn) -> Policy:
        """The operator's, narrowed by the kind and then by the client."""
        of_kind: dict[str, Any] = dict(kind.limits)
        policy = narrow(narrow(self._sandbox.policy, Wish(**of_kind)), _wish(request))
        _check_memory(kind, policy)
        return policy

    def _policy_of(self, host: Process) -> Policy:
        """As far as the server knows it; the supervisor takes the rest from the process itself."""
        known = host.facts.isolation
        return narrow(self._sandbox.policy, Wish(network=None if known is None else known.network))

    def _context(self, cwd: str, policy: Policy, handed: Handed, dry: bool) -> WorkspaceContext:
        path = self._machine.path
        return WorkspaceContext(self._workspace, self._programs, cwd, path, policy.network, handed, dry)

    def _folder(self, asked: Asked) -> Folder:
        """Raises NotFound. For a shell that a person sits before, the workspace itself stands in for a folder
        that is not there; commands must not run elsewhere than where they were meant to. Raises StartFailed
        where the workspace is gone from its path, by which sandboxes take it."""
        if not self._workspace.is_in_place():
            raise StartFailed(
                "the workspace was moved or removed since the runtime started",
                hint="put a folder at its path, then `mhnos-runtime reload` takes that one",
            )
        of_host = "/" if asked.host is None else asked.host.facts.cwd
        cwd = self._workspace.normalise(asked.request.options.cwd or of_host)
        try:
            return Folder(cwd, self._workspace.open_dir(cwd))
        except NotFound:
            interactive = asked.kind.command == "shell" and is_interactive(asked.request.command, asked.args)
            if not interactive or _terminal(asked.kind, asked.request.pty) is None:
                raise
        return Folder("/", self._workspace.open_dir("/"), f"mhnos: {cwd} does not exist; starting in /")

    def _facts(self, asked: Asked, cwd: str, policy: Policy, listens: Listening, token: str) -> ProcessFacts:
        request, host = asked.request, asked.host
        return ProcessFacts(
            kind=request.process_type,
            command=request.command,
            args=tuple(request.args),
            name=request.name,
            cwd=cwd,
            linger_ms=request.linger_ms,
            timeout_ms=_timeout_ms(request.options.timeout) or None,
            remove=request.remove,
            limits=_limits(policy) if host is None else host.facts.limits,
            sandbox=policy.level,
            isolation=describe(self._sandbox.facts, policy) if host is None else host.facts.isolation,
            within=0 if host is None else host.pid,
            key=None if request.key is None else SpawnKey(request.key, digest(request)),
            single=asked.kind.single,
            early_exit=asked.kind.early_exit,
            ports=listens.ports,
            watch=listens.watch,
            ready=None if listens.watch is None else ready.Readiness("starting"),
            secrets=Secrets(token or None),
        )


def _command(asked: Asked, context: WorkspaceContext) -> tuple[str, tuple[str, ...]]:
    """The command as the program takes it, and the sockets that it is to be handed by name."""
    kind, command = asked.kind, asked.request.command
    named = tuple(asked.ports) if kind.named_sockets else ()
    if kind.command != "script" or not command or command.startswith("-"):
        return command, named
    script = Script(command, kind.hooks.real(command, context), asked.request.worker)
    program, needed = kind.hooks.program(script, context)
    return program, tuple(dict.fromkeys((*named, *needed)))


def _check_size(request: m.Spawn) -> None:
    """Raises InvalidRequest (too-large) before anything is made of the request. Whether it fits into a
    message to the supervisor, which escapes some characters, shows when it is sent."""
    env = request.options.env or {}
    for what, count, most in (
        ("args", len(request.args), bounds.ARGUMENTS),
        ("options.env", len(env), bounds.VARIABLES),
        ("options.env.PATH: folders", env.get("PATH", "").count(":") + 1, bounds.PATH_FOLDERS),
    ):
        if count > most:
            raise InvalidRequest(f"{what}: {count} are too many; at most {most}", code="too-large")
    texts = (request.command, *request.args, *env, *env.values())
    size = sum(map(len, texts))
    if size > bounds.COMMAND_BYTES:
        raise InvalidRequest(
            f"command, arguments and environment have {size} characters, {bounds.COMMAND_BYTES} bytes are "
            "allowed",
            code="too-large",
            hint="put them in a file",
        )


def _check_memory(kind: Kind, policy: Policy) -> None:
    if 0 < policy.memory_bytes < kind.needed_memory_bytes:
        raise InvalidRequest(
            f"{kind.name} needs {_shown(kind.needed_memory_bytes)} of memory, and the limit is "
            f"{_shown(policy.memory_bytes)}",
            code="limit-too-small",
            hint="raise MHNOS_MAX_MEMORY, or limits.memoryBytes of the request",
        )


def _shown(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _narrowed(policy: Policy) -> Wish:
    """The wish that narrows the operator's policy to this one."""
    return Wish(
        policy.network,
        policy.memory_bytes,
        policy.tasks,
        policy.cpu_percent,
        policy.cpu_seconds,
        policy.file_bytes,
        policy.open_files,
    )


def _limits(policy: Policy) -> Limits:
    """For people to look at."""
    return Limits(
        policy.memory_bytes,
        policy.tasks,
        policy.cpu_percent,
        policy.cpu_seconds,
        policy.file_bytes,
        policy.open_files,
    )


def _wish(request: m.Spawn) -> Wish:
    limits = request.limits or m.SpawnLimits()
    return Wish(
        request.network,
        limits.memory_bytes,
        limits.tasks,
        limits.cpu_percent,
        limits.cpu_seconds,
        limits.file_bytes,
        limits.open_files,
    )


def _terminal(kind: Kind, asked: m.PtySize | bool | None) -> tuple[int, int] | None:
    if isinstance(asked, m.PtySize):
        return asked.cols, asked.rows
    return DEFAULT_SIZE if (kind.pty if asked is None else asked) else None


def _timeout_ms(asked: float | None) -> int:
    if asked is not None and not asked <= plan.MAX_TIMEOUT_MS:
        raise InvalidRequest(f"options.timeout: at most {plan.MAX_TIMEOUT_MS} ms, 0 for none")
    return round(asked or 0)
