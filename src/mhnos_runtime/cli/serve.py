"""`serve`: checks everything that can be wrong, says how to connect, and turns into the supervisor."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mhnos_runtime import config
from mhnos_runtime.bounds import FRAME_BYTES, MESSAGE_BYTES
from mhnos_runtime.channel import encode
from mhnos_runtime.cli import host, local
from mhnos_runtime.cli.greeting import greeting
from mhnos_runtime.cli.listen import listen
from mhnos_runtime.cli.node import complete_wheel
from mhnos_runtime.config import SETTINGS, ConfigError, Setting, Settings
from mhnos_runtime.config.address import HostPort, is_loopback
from mhnos_runtime.launch import Hello
from mhnos_runtime.process import kinds
from mhnos_runtime.sandbox import Allowed, HostFacts, Policy, Sandbox, cgroups
from mhnos_runtime.server.auth.token import ensure_token
from mhnos_runtime.server.auth.token_store import learn
from mhnos_runtime.supervisor import handover, plain
from mhnos_runtime.supervisor.config import Config

#: Is told ("warning" or "greeting", text).
Say = Callable[[str, str], None]


def start(settings: Settings, config_files: Sequence[Path], say: Say, *, private: bool) -> None:
    """Start the runtime in the place of this process. config_files: where settings are read from, there or
    not. private: whether the greeting goes to a terminal. Raises ConfigError."""
    config.prepare_workspace(settings)
    user = host.choose_user(settings)
    own = host.trust(settings, user, config_files)
    host.check_own_files(own, settings.sandbox)
    complete_wheel()
    facts, node, no_node = host.check(settings, user)
    host.check_hand_over(settings, user)
    for warning in host.warnings(settings, facts):
        say("warning", warning)
    _check_size({"settings": settings.to_json(), "allowed": _allowed(settings, user, facts).to_dict()})
    token_file = ensure_token(settings.state_dir)
    known = learn(token_file)
    lock_fd = _lock(settings.state_dir)
    listeners = listen(settings.host, settings.port)
    url = _url(settings, listeners[0])
    server_id = secrets.token_hex(8)
    _publish(settings.state_dir, {"url": url, "pid": os.getpid(), "serverId": server_id})
    # A reload that is asked for from now on waits for the supervisor, which unblocks the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    say("greeting", greeting(settings, user, url, token_file, private=private))
    if user.ids is not None and user.hand_over:
        host.hand_over(settings.workspace, user.ids)
    groups = cgroups.prepare(cgroups.find()[0])
    hello = Hello(
        server_id=server_id,
        spawned=0,
        allowed=_allowed(settings, user, replace(facts, cgroups=groups)).to_dict(),
        settings=settings.to_json(),
        token=known.to_dict(),
        path=host.path_for(user),
        node=node,
        no_node=no_node,
        listeners=tuple(sock.fileno() for sock in listeners),
    )
    _become_supervisor(
        Config(
            # -P: nothing is imported from the working directory, which may be the workspace.
            server=["-P", "-m", "mhnos_runtime.server"],
            lock_fd=lock_fd,
            state_dir=settings.state_dir,
            stop_grace_ms=round(settings.kill_grace_seconds * 1000),
            hello=hello,
            log_json=settings.log_format == "json"
            or (settings.log_format == "auto" and not sys.stderr.isatty()),
            remove_at_end=[str(settings.state_dir / local.FILE)],
            groups=[path for _controller, path in groups],
            own=own.to_json(),
        )
    )


def _allowed(settings: Settings, user: host.User, facts: HostFacts) -> Allowed:
    """What the supervisor lets a server start, whoever has the server by then."""
    policy = Policy(
        level=settings.sandbox,
        network=settings.network,
        memory_bytes=settings.max_memory,
        tasks=settings.max_tasks,
        cpu_percent=settings.max_cpu,
        cpu_seconds=settings.max_cpu_seconds,
        file_bytes=settings.max_file_size,
        open_files=settings.max_open_files,
        user=user.ids,
    )
    needed_ms = max(kind.grace_ms for kind in kinds.all_kinds(settings.kinds).values())
    return Allowed(
        Sandbox(policy, facts, os.path.realpath(settings.workspace), own_folders=kinds.OWN_FOLDERS),
        engines_dir=str(settings.engines_dir),
        processes=settings.max_processes,
        retention_bytes=settings.retention_bytes,
        stall_ms=round(settings.stall_seconds * 1000),
        grace_ms=max(round(settings.kill_grace_seconds * 1000), needed_ms),
    )


def _check_size(told: dict[str, Any]) -> None:
    """Each server is told it in one message, with some paths and numbers beside it. Raises ConfigError."""
    size, most = len(encode(told)), MESSAGE_BYTES - FRAME_BYTES
    if size > most:
        raise ConfigError(
            f"the settings take {size} bytes, {most} are possible",
            hint="declare fewer kinds, or shorter ones",
        )


def _lock(state_dir: Path) -> int:
    """Keep the state directory for this runtime alone, for as long as the supervisor lives."""
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"another runtime is using {state_dir}" + _where(state_dir),
            hint="use that one, end it with `mhnos-runtime stop-server`, or give this one its own "
            "MHNOS_STATE_DIR",
        ) from None
    return fd


def _where(state_dir: Path) -> str:
    found = local.find(state_dir)
    return f" (pid {found.os_pid}, {found.url})" if found is not None else ""


def _url(settings: Settings, listener: socket.socket) -> str:
    """Where clients of this machine find it. A loopback name becomes the address, which nobody else resolves;
    not with TLS, whose certificate is for the name."""
    address, port = listener.getsockname()[:2]
    secure = settings.tls_cert is not None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    if is_loopback(settings.host) and not secure:
        host = address
    origin = f"{'https' if secure else 'http'}://{HostPort(host, port)}"
    return origin + settings.base_path.removesuffix("/")


def _publish(state_dir: Path, facts: dict[str, object]) -> None:
    """Let clients of this machine find the runtime, and a later version know whether it can take over."""
    facts = {**facts, "stateVersion": handover.STATE_VERSION}
    path = state_dir / local.FILE
    draft = path.with_suffix(".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(facts, file)
    draft.rename(path)


def _become_supervisor(supervisor_config: Config) -> None:
    fd = handover.write(plain.encode(supervisor_config))
    for each in (supervisor_config.lock_fd, *supervisor_config.listeners):
        os.set_inheritable(each, True)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "mhnos_runtime.supervisor", str(fd)])


def _option(setting: Setting) -> click.Option:
    names = [setting.flag, setting.name]
    if setting.type.switch:
        names = [f"{setting.flag}/--no-{setting.flag[2:]}", setting.name]
    return click.Option(
        names,
        help=setting.flag_help(),
        metavar=None if setting.type.switch else setting.type.metavar,
        is_flag=setting.type.switch,
        default=None,
        multiple=setting.type.many,
    )


def serve_(folder: str | None, detach: bool, **flags: Any) -> None:
    """What the verb does: checks what the command line alone can get wrong, then starts, here or behind."""
    settings, warnings = _load(folder, flags)
    for warning in warnings:
        _say("warning", warning)
    files = config.config_files(flags)
    private = sys.stdout.isatty()
    if not detach:
        start(settings, files, _say, private=private)
        return
    from mhnos_runtime.cli.detach import detached

    config.ensure_state_dir(settings.state_dir)
    detached(settings.state_dir, lambda say: start(settings, files, say, private=private), _say)


def _load(folder: str | None, flags: dict[str, Any]) -> tuple[Settings, tuple[str, ...]]:
    """The settings, with the folder of the command line as the workspace. Raises ConfigError, UsageError."""
    if folder is None:
        return config.load(flags)
    flag = flags["workspace"]
    if flag is not None and os.path.realpath(flag) != os.path.realpath(folder):
        raise click.UsageError(f"FOLDER is {folder!r}, and --workspace {flag!r}: give one of them")
    settings, warnings = config.load({**flags, "workspace": os.path.abspath(folder)})
    return replace(settings, sources={**settings.sources, "workspace": "argument FOLDER"}), warnings


def _say(kind: str, text: str) -> None:
    click.echo(f"mhnos-runtime: {text}" if kind == "warning" else text, err=kind == "warning")


serve = click.Command(
    "serve",
    callback=serve_,
    params=[
        click.Argument(["folder"], required=False, metavar="[FOLDER]", type=click.Path()),
        click.Option(["-d", "--detach"], is_flag=True, help="start in the background; return when it serves"),
        click.Option(["--config"], metavar="FILE", help="settings file (TOML) (MHNOS_CONFIG)"),
        *map(_option, SETTINGS),
    ],
    help="""Start the runtime and print how to connect. FOLDER is the workspace, in which processes and
    clients work; without one it is the setting's.

    Nothing has to be configured: the default workspace, the state directory and the token are made at the
    first start.
    In the foreground Ctrl-C stops it: its processes are ended in order. In the background (-d) it goes on
    when the terminal closes, and logs into runtime.log of the state directory; `mhnos-runtime stop-server`
    stops it.
    SIGHUP restarts the server and leaves processes running.

    \b
    Examples:
      mhnos-runtime serve
      mhnos-runtime serve .
      mhnos-runtime serve -d ~/project
      mhnos-runtime serve --port 0 --workspace ~/project
      MHNOS_MAX_PROCESSES=200 mhnos-runtime serve --allow-origin https://desk.example.com
    """,
)
