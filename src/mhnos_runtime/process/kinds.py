"""Kinds as data: what each one executes, how it gets ports, when it is ready, how it is ended.

One form for built-in kinds and for those that an operator declares. Knows no request and no host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mhnos_runtime.config import KindSetting
from mhnos_runtime.config.kinds import ReadySetting

#: How the client's command is read. script: a path in the workspace, unless it begins with "-"; text: as it
#: is; shell: the name of a shell, or a command line for one.
Command = Literal["script", "text", "shell"]

#: What a terminal's programs get after SIGTERM, which an interactive shell ignores, and before SIGKILL.
HANG_UP_MS = 500
#: The environment variable in which OpenClaw takes its token.
OPENCLAW_TOKEN = "OPENCLAW_GATEWAY_TOKEN"
#: OpenClaw's own folder in the workspace.
OPENCLAW_FOLDER = ".openclaw"
#: What OpenClaw makes anew when it is gone: 55 MB of pages that it unpacks, 40 MB that Node.js has compiled.
OPENCLAW_CACHE = f"{OPENCLAW_FOLDER}/cache"


@dataclass(frozen=True, slots=True)
class Kind:
    """argv: a template, see `process.template` for its placeholders.

    pty: whether it gets a terminal when the request does not say. env: a template too. hang_up_ms: see
    HANG_UP_MS; it is for terminals only. ready: how it is known that it serves; None: nobody looks.
    named_sockets: the client may name sockets that it is to be handed. events: it tells by `{control}` where
    it listens, and is ready when it does. grace_ms: what it needs to end in order, where that is more than
    what the operator gives. needed_memory_bytes: with less it does not start well. single: one at a time.
    early_exit: what to call an end with an error before it was ready.
    """

    name: str
    argv: tuple[str, ...]
    pty: bool = False
    command: Command = "script"
    env: tuple[tuple[str, str], ...] = ()
    hang_up_ms: int = HANG_UP_MS
    limits: tuple[tuple[str, int], ...] = ()
    ready: ReadySetting | None = None
    named_sockets: bool = False
    events: bool = False
    grace_ms: int = 0
    needed_memory_bytes: int = 0
    single: bool = False
    early_exit: str = ""


NODE = Kind("node", ("node", "--max-old-space-size={memory_mb}", "{command}", "{args}"))
PYTHON = Kind("python", ("python3", "{command}", "{args}"))
SHELL = Kind("shell", (), pty=True, command="shell", hang_up_ms=0)

WORKERD = Kind(
    "workerd",
    (
        *(
            "{engine:workerd}",
            "serve",
            "--import-path=/",
            "--control-fd={control}",
            "--socket-fd={name:*}={socket:*}",
        ),
        *("{command}", "{args}"),
    ),
    named_sockets=True,
    events=True,
    ready=ReadySetting(),
    early_exit="config",
)

_OPENCLAW_ENV = (
    ("OPENCLAW_STATE_DIR", "{home}/" + OPENCLAW_FOLDER),
    ("OPENCLAW_CONFIG_PATH", "{home}/" + OPENCLAW_FOLDER + "/openclaw.json"),
    # Spares each start but the first 2 s. OpenClaw's own choice is /tmp, which is gone with the process in
    # strict, and can be another user's elsewhere.
    ("NODE_COMPILE_CACHE", "{home}/" + OPENCLAW_CACHE + "/node"),
    # Else it starts itself anew, to have a folder of its own in that one.
    ("OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED", "1"),
)
_GATEWAY_ENV = (
    *_OPENCLAW_ENV,
    ("OPENCLAW_GATEWAY_PORT", "{port:gateway}"),
    (OPENCLAW_TOKEN, "{token}"),
)
_OPENCLAW = ("{engine:node}", "--max-old-space-size={memory_mb}", "{engine:openclaw}")

#: The gateway. It serves until it is stopped.
OPENCLAW = Kind(
    "openclaw",
    (
        *_OPENCLAW,
        *("gateway", "run", "--allow-unconfigured", "--bind", "loopback", "--auth", "token"),
        *("--port", "{port:gateway}", "{args}"),
    ),
    command="text",
    env=_GATEWAY_ENV,
    # Its first start on a slow machine, when it unpacks its pages and makes its database, takes a minute.
    ready=ReadySetting(
        url="http://127.0.0.1:{port:gateway}/readyz", line=r"\[gateway\] ready", timeout_seconds=180.0
    ),
    grace_ms=15_000,
    needed_memory_bytes=1_000_000_000,
    single=True,
)

#: Every other command of it: `openclaw config get`, `openclaw status`. They find the gateway that runs.
OPENCLAW_COMMAND = Kind(
    "openclaw",
    (*_OPENCLAW, "{command}", "{args}"),
    command="text",
    env=_OPENCLAW_ENV,
    needed_memory_bytes=OPENCLAW.needed_memory_bytes,
)

BUILT_IN = (NODE, PYTHON, SHELL, WORKERD, OPENCLAW)


def all_kinds(declared: Iterable[KindSetting]) -> dict[str, Kind]:
    """Built-in and declared kinds by name."""
    kinds = {kind.name: kind for kind in BUILT_IN}
    for setting in declared:
        kinds[setting.name] = Kind(
            setting.name,
            setting.argv,
            setting.pty,
            setting.command,
            setting.env,
            limits=setting.limits,
            ready=setting.ready,
            grace_ms=round(setting.grace_seconds * 1000),
            needed_memory_bytes=setting.needed_memory_bytes,
            single=setting.single,
        )
    return kinds
