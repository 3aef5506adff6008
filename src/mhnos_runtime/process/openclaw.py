"""OpenClaw's kinds, what its command words mean here, and the config that it starts with. Touches no file but
through the context."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mhnos_runtime.config import Settings
from mhnos_runtime.config.kinds import ReadySetting
from mhnos_runtime.errors import InvalidRequest, Refused
from mhnos_runtime.process.facts import ProcessFacts
from mhnos_runtime.process.kind import Hooks, Interpreted, Kind, StartContext

#: The environment variable in which it takes its token.
TOKEN = "OPENCLAW_GATEWAY_TOKEN"
#: Its own folder in the workspace.
FOLDER = ".openclaw"
#: What it makes anew when it is gone: 55 MB of pages that it unpacks, 40 MB that Node.js has compiled.
CACHE = f"{FOLDER}/cache"
#: Where it keeps locks over what several of its processes use. It takes no other place, whatever TMPDIR says.
LOCKS = "/tmp/openclaw-state-locks-{uid}"  # noqa: S108 - it must belong to the user
#: Where it is in the workspace.
CONFIG = f"/{FOLDER}/openclaw.json"
PORT = "gateway"
#: `openclaw start`, `openclaw gateway`, `openclaw gateway run`: the gateway itself.
_GATEWAY = ("", "start", "gateway")
_RUN = ("run", "start")
#: The runtime's own to set: another value would open the gateway to others, or make its record untrue.
_OWN_FLAGS = ("--bind", "--auth", "--token", "--password", "--password-file", "--tailscale", "--dev")


class _OpenClaw(Hooks):
    def check_allowed(self, settings: Settings) -> None:
        if not settings.allow_openclaw:
            raise Refused(
                "OpenClaw is not enabled in this runtime",
                code="kind-disabled",
                hint="the operator sets MHNOS_ALLOW_OPENCLAW=true",
            )

    def interpret(self, _kind: Kind, command: str, args: tuple[str, ...], /) -> Interpreted:
        return interpret(command, args)


class _Gateway(_OpenClaw):
    def write_files(self, context: StartContext) -> None:
        context.write_new(CONFIG, config(context.home))


class _Command(_OpenClaw):
    def environment(self, running: ProcessFacts | None, /) -> Mapping[str, str]:
        """By which a command finds the gateway that runs."""
        ports = {} if running is None else {each.name: each.port for each in running.ports}
        if running is None or PORT not in ports:
            return {}
        return {"OPENCLAW_GATEWAY_PORT": str(ports[PORT]), TOKEN: running.secrets.token or ""}


_OPENCLAW_ENV = (
    ("OPENCLAW_STATE_DIR", "{home}/" + FOLDER),
    ("OPENCLAW_CONFIG_PATH", "{home}/" + FOLDER + "/openclaw.json"),
    # Spares each start but the first 2 s. OpenClaw's own choice is /tmp, which is gone with the process in
    # strict, and can be another user's elsewhere.
    ("NODE_COMPILE_CACHE", "{home}/" + CACHE + "/node"),
    # Else it starts itself anew, to have a folder of its own in that one.
    ("OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED", "1"),
)
_GATEWAY_ENV = (
    *_OPENCLAW_ENV,
    ("OPENCLAW_GATEWAY_PORT", "{port:gateway}"),
    (TOKEN, "{token}"),
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
    caches=(f"/{CACHE}",),
    own_folders=(("openclaw", LOCKS),),
    hooks=_Gateway(),
)

#: Every other command of it: `openclaw config get`, `openclaw status`. They find the gateway that runs.
COMMAND = Kind(
    "openclaw",
    (*_OPENCLAW, "{command}", "{args}"),
    command="text",
    env=_OPENCLAW_ENV,
    needed_memory_bytes=OPENCLAW.needed_memory_bytes,
    hooks=_Command(),
)


def interpret(command: str, args: tuple[str, ...]) -> Interpreted:
    """The form of the kind, its arguments, and the port that they ask for.

    Raises InvalidRequest for a flag of the gateway that the runtime sets itself.
    """
    rest = args[1:] if command == "gateway" and args[:1] and args[0] in _RUN else args
    if command not in _GATEWAY or (command == "gateway" and rest and not rest[0].startswith("-")):
        return Interpreted(COMMAND, args)
    return _gateway(rest)


def _gateway(args: tuple[str, ...]) -> Interpreted:
    kept: list[str] = []
    port, items = 0, iter(args)
    for item in items:
        flag, equals, value = item.partition("=")
        if flag in _OWN_FLAGS:
            raise InvalidRequest(f"openclaw: {flag} is set by the runtime", hint=f"leave {flag} out")
        if flag == "--port":
            port = _port(value if equals else next(items, ""))
        else:
            kept.append(item)
    return Interpreted(OPENCLAW, tuple(kept), {PORT: port} if port else {})


def _port(text: str) -> int:
    if not text.isdigit() or not 1024 <= int(text) < 65536:
        raise InvalidRequest(f"openclaw: --port is {text!r}; expected a number from 1024 to 65535")
    return int(text)


def config(home: str) -> str:
    """What the first start finds. home: the workspace as the gateway sees it."""
    log = f"{home}/{FOLDER}/logs/openclaw.log"
    return json.dumps({"gateway": {"mode": "local"}, "logging": {"file": log}}, indent=2) + "\n"
