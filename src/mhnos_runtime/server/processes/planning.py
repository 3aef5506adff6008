"""From a client's request to what the supervisor starts: kind, paths, ports, engines, sandbox, launch plan.

Opens what the process is handed; starts nothing, and knows no table of processes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mhnos_runtime import bounds
from mhnos_runtime.config import Settings
from mhnos_runtime.config.kinds import ENGINES
from mhnos_runtime.engines import Engine, EngineStore, missing
from mhnos_runtime.errors import InvalidRequest, NotFound, StartFailed
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.launch import Choice, Hello, LaunchPlan, StartDescriptors, Wish
from mhnos_runtime.process import kinds, plan, ready, template, workerd
from mhnos_runtime.process.facts import Key, ProcessFacts, Secrets
from mhnos_runtime.process.kind import Kind, Script
from mhnos_runtime.sandbox import Allowed, Policy, describe, narrow, view
from mhnos_runtime.sandbox.probe import reachable
from mhnos_runtime.server.processes.keys import digest
from mhnos_runtime.server.processes.ports import MOST, Handed, check_names, free, listen
from mhnos_runtime.server.processes.start_context import WorkspaceContext
from mhnos_runtime.wire import messages as m

#: How long what is known of installed engines is good for processes that need none.
_LOOK_SECONDS = 1.0
DEFAULT_SIZE = (m.DEFAULT_COLS, m.DEFAULT_ROWS)


@dataclass(frozen=True, slots=True)
class Start:
    """The descriptors end with `Planner.prepare`."""

    plan: LaunchPlan
    descriptors: StartDescriptors


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as its kind takes it. ports: numbers asked for by name."""

    kind: Kind
    request: m.Spawn
    args: tuple[str, ...]
    ports: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reached:
    """What is known at the start of where it will listen, and what is still to be found out. token: what it
    asks of its callers, or ""."""

    ports: tuple[ready.Port, ...]
    watch: ready.Watch | None
    token: str


class Planner:
    """Knows the operator's settings and what this machine has."""

    def __init__(self, settings: Settings, hello: Hello, workspace: Workspace) -> None:
        self._settings = settings
        self._workspace = workspace
        self._kinds = kinds.all_kinds(settings.kinds)
        self._engines = EngineStore(settings.engines_dir)
        self._folders: tuple[str, ...] = ()
        self._look_again_at = 0.0
        self._allowed = Allowed.from_dict(hello.allowed)
        self._sandbox = self._allowed.sandbox
        self._view = view(self._sandbox, hello.path)
        self._machine = plan.Machine(
            self._view.path,
            hello.node,
            hello.no_node,
            os.environ,
            lambda name, path: shutil.which(name, path=path),
        )
        self._launch_settings = plan.LaunchSettings(
            home=self._view.workspace,
            max_memory_bytes=settings.max_memory,
            retention_bytes=settings.retention_bytes,
            stall_ms=round(settings.stall_seconds * 1000),
            kill_grace_ms=round(settings.kill_grace_seconds * 1000),
        )

    def asked(self, request: m.Spawn) -> Asked:
        """Raises Refused and InvalidRequest (unknown-kind, invalid-argument, too-large)."""
        _check_size(request)
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
        return Asked(interpreted.kind, request, interpreted.args, {**interpreted.ports, **ports})

    @contextlib.contextmanager
    def prepare(self, asked: Asked, environment: Mapping[str, str], dry: bool = False) -> Iterator[Start]:
        """environment: added to what the request asks for. dry: write nothing into the workspace. Raises
        MhnosError with a code for whatever is wrong."""
        cwd, directory, banner = self._directory(asked.kind, asked.request.options.cwd or "/")
        handed = Handed()
        try:
            launch = self._plan(asked, cwd, banner, handed, environment, dry)
            yield Start(launch, StartDescriptors(directory, tuple(handed.descriptors)))
        finally:
            os.close(directory)
            handed.close()

    def worker_config(self, request: m.WorkerConfig) -> str:
        """The config that a spawn of the same script would run. Raises as `prepare`."""
        if not workerd.is_script(request.command):
            raise InvalidRequest(f"{request.command!r} is no worker script; expected a .js or .mjs file")
        cwd = self._workspace.normalise(request.options.cwd or "/")
        policy = narrow(self._sandbox.policy, Wish(network=request.network))
        context = WorkspaceContext(
            self._workspace, self._view.workspace, cwd, policy.network, Handed(), dry=True
        )
        script = Script(request.command, context.real(request.command), request.worker)
        return workerd.generate(script, context)

    def _plan(
        self,
        asked: Asked,
        cwd: str,
        banner: str,
        handed: Handed,
        environment: Mapping[str, str],
        dry: bool,
    ) -> LaunchPlan:
        kind, request = asked.kind, asked.request
        of_kind: dict[str, Any] = dict(kind.limits)
        policy = narrow(narrow(self._sandbox.policy, Wish(**of_kind)), _wish(request))
        _check_memory(kind, policy)
        engines = self._find_engines(kind)
        if engines:
            # One of them may have come this very moment.
            self._look_again_at = 0.0
        outside = policy.level == "none" or policy.network == "host"
        context = WorkspaceContext(self._workspace, self._view.workspace, cwd, policy.network, handed, dry)
        command, named = _command(asked, context)
        given = _given(asked, named, handed, engines, outside)
        kind.hooks.write_files(context)
        resolved = plan.ResolvedRequest(
            command=command,
            args=asked.args,
            env={**environment, **(request.options.env or {})},
            pty=_terminal(kind, request.pty),
            timeout_ms=_timeout_ms(request.options.timeout),
            watched=request.attach,
            banner=banner,
            handed=len(handed.descriptors),
            given=given,
        )
        facts = self._facts(asked, cwd, policy, _reached(kind, given, handed, outside))
        choice = Choice(_narrowed(policy), cwd, self._installed())
        launch = plan.plan(kind, resolved, self._launch_settings, self._machine, facts.to_plain(), choice)
        return self._allowed.confined(launch, handed_sockets=bool(handed.sockets))

    def _find_engines(self, kind: Kind) -> dict[str, str]:
        """Programs by engine's name. Raises StartFailed (engine-missing)."""
        found = {}
        for name in template.found((*kind.argv, *(text for _name, text in kind.env)), "engine"):
            engine = self._engines.find(name)
            if engine is None:
                raise missing(name)
            closed = self._closed(engine)
            if closed:
                raise StartFailed(
                    f"{engine.program} is behind {closed}, which the user of processes cannot enter",
                    code="not-executable",
                    hint="choose another MHNOS_ENGINES_DIR, or let that user into the folder",
                )
            found[name] = str(engine.program)
        return found

    def _closed(self, engine: Engine) -> str:
        """The folder on the way to an engine that the user of processes cannot enter, or ""."""
        user = self._sandbox.policy.user
        return reachable(engine.program, user) if user is not None else ""

    def _installed(self) -> tuple[str, ...]:
        """Folders of all engines, for every process, so that one waiting sandbox fits all of them. One that
        its user cannot enter could not be shown, and would let no sandbox be made."""
        now = time.monotonic()
        if now >= self._look_again_at:
            found = [engine for name in ENGINES if (engine := self._engines.find(name)) is not None]
            self._folders = tuple(str(engine.folder) for engine in found if not self._closed(engine))
            self._look_again_at = now + _LOOK_SECONDS
        return self._folders

    def _directory(self, kind: Kind, path: str) -> tuple[str, int, str]:
        """The working directory as a workspace path and a descriptor, and a banner where it is another."""
        cwd = self._workspace.normalise(path)
        try:
            return cwd, self._workspace.open_dir(cwd), ""
        except NotFound:
            if kind.command != "shell":
                raise
        return "/", self._workspace.open_dir("/"), f"mhnos: {cwd} does not exist; starting in /"

    def _facts(self, asked: Asked, cwd: str, policy: Policy, reached: Reached) -> ProcessFacts:
        request = asked.request
        return ProcessFacts(
            kind=request.process_type,
            command=request.command,
            args=tuple(request.args),
            name=request.name,
            cwd=cwd,
            linger_ms=request.linger_ms,
            sandbox=policy.level,
            isolation=describe(self._sandbox.facts, policy),
            key=None if request.key is None else Key(request.key, digest(request)),
            single=asked.kind.single,
            early_exit=asked.kind.early_exit,
            ports=reached.ports,
            watch=reached.watch,
            ready=None if reached.watch is None else ready.Readiness("starting"),
            secrets=Secrets(reached.token or None),
        )


def _command(asked: Asked, context: WorkspaceContext) -> tuple[str, tuple[str, ...]]:
    """The command as the program takes it, and the sockets that it is to be handed by name."""
    kind, command = asked.kind, asked.request.command
    named = tuple(asked.ports) if kind.named_sockets else ()
    if kind.command != "script" or not command or command.startswith("-"):
        return command, named
    script = Script(command, context.real(command), asked.request.worker)
    program, needed = kind.hooks.program(script, context)
    return program, tuple(dict.fromkeys((*named, *needed)))


def _check_size(request: m.Spawn) -> None:
    """Before anything is made of it. Whether it fits into a message, with all that is escaped there, shows
    when it is sent. Raises InvalidRequest (too-large)."""
    env = request.options.env or {}
    for what, count, most in (
        ("args", len(request.args), bounds.ARGUMENTS),
        ("options.env", len(env), bounds.VARIABLES),
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


def _given(
    asked: Asked, named: tuple[str, ...], handed: Handed, engines: dict[str, str], outside: bool
) -> template.Values:
    """Opens the sockets and finds the ports that the kind's template, or the client, names."""
    texts = (*asked.kind.argv, *(text for _name, text in asked.kind.env))
    sockets = dict.fromkeys((*template.found(texts, "socket"), *named))
    numbers = template.found(texts, "port")
    unknown = next((name for name in asked.ports if name not in sockets and name not in numbers), None)
    if unknown is not None:
        known = ", ".join((*sockets, *numbers))
        raise InvalidRequest(
            f"ports: {asked.kind.name} has no port {unknown!r}",
            hint=f"it has {known}" if known else "it has none",
        )
    if len(sockets) + len(numbers) > MOST:
        raise InvalidRequest(f"ports: {asked.kind.name} has more than {MOST} of them")
    for name in sockets:
        sock = listen(asked.ports.get(name, 0))
        handed.ports[name] = sock.getsockname()[1]
        handed.sockets[name] = handed.add(sock.detach())
    for name in numbers:
        asked_for = asked.ports.get(name, 0)
        # In a network of the process's own every port is free.
        handed.ports[name] = asked_for if asked_for and not outside else free(asked_for)
    token = secrets.token_urlsafe(32) if any("{token}" in text for text in texts) else ""
    return template.Values(
        token=token, ports=handed.ports, sockets=handed.sockets, named=named, engines=engines
    )


def _reached(kind: Kind, given: template.Values, handed: Handed, outside: bool) -> Reached:
    reachable = {name: outside or name in handed.sockets for name in handed.ports}
    ports = (
        ready.port(name, number, ready.LOOPBACK if reachable[name] else "")
        for name, number in handed.ports.items()
    )
    watch = _watch(kind, handed, reachable, outside)
    url = watch.url if watch is not None else ""
    return Reached(tuple(_with_url(port, url) for port in ports), watch, given.token)


def _with_url(port: ready.Port, url: str) -> ready.Port:
    """A port whose health is asked for by HTTP speaks HTTP."""
    start = f"http://{ready.LOOPBACK}:{port.port}"
    return replace(port, url=start) if port.address and url.startswith(f"{start}/") else port


def _watch(kind: Kind, handed: Handed, reachable: Mapping[str, bool], outside: bool) -> ready.Watch | None:
    """None where there is nothing to watch, or nothing that could be seen from here."""
    wanted = kind.ready
    if wanted is None:
        return None
    named = {wanted.port} if wanted.port else set()
    named |= {name for what in ("port", "socket") for name in template.found((wanted.url,), what)}
    seen = all(reachable[name] for name in named)
    # In the URL both stand for the number of the port.
    url = template.fill(wanted.url, template.Values(ports=handed.ports, sockets=handed.ports)) if seen else ""
    port = handed.ports[wanted.port] if seen and wanted.port else 0
    line = "" if url or port else wanted.line
    if not (line or url or port or kind.events):
        return None
    return ready.Watch(line, port, url, kind.events, outside, round(wanted.timeout_seconds * 1000))


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
    """What makes the operator's policy this one."""
    return Wish(
        policy.network,
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
