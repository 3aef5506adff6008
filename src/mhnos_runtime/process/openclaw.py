"""What OpenClaw's command words mean here, and the config that it starts with. Pure."""

from __future__ import annotations

import json

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process.facts import ProcessFacts
from mhnos_runtime.process.kinds import OPENCLAW, OPENCLAW_COMMAND, OPENCLAW_FOLDER, OPENCLAW_TOKEN, Kind

#: Where it is in the workspace.
CONFIG = f"/{OPENCLAW_FOLDER}/openclaw.json"
PORT = "gateway"
#: `openclaw start`, `openclaw gateway`, `openclaw gateway run`: the gateway itself.
_GATEWAY = ("", "start", "gateway")
_RUN = ("run", "start")
#: The runtime's own to set: another value would open the gateway to others, or make its record untrue.
_OWN_FLAGS = ("--bind", "--auth", "--token", "--password", "--password-file", "--tailscale", "--dev")


def meant(command: str, args: tuple[str, ...]) -> tuple[Kind, tuple[str, ...], int]:
    """The form of the kind, its arguments, and the port that they ask for (0: any).

    Raises InvalidRequest for a flag of the gateway that the runtime sets itself.
    """
    rest = args[1:] if command == "gateway" and args[:1] and args[0] in _RUN else args
    if command not in _GATEWAY or (command == "gateway" and rest and not rest[0].startswith("-")):
        return OPENCLAW_COMMAND, args, 0
    return _gateway(rest)


def _gateway(args: tuple[str, ...]) -> tuple[Kind, tuple[str, ...], int]:
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
    return OPENCLAW, tuple(kept), port


def _port(text: str) -> int:
    if not text.isdigit() or not 1024 <= int(text) < 65536:
        raise InvalidRequest(f"openclaw: --port is {text!r}; expected a number from 1024 to 65535")
    return int(text)


def config(home: str) -> str:
    """What the first start finds. home: the workspace as the gateway sees it."""
    log = f"{home}/{OPENCLAW_FOLDER}/logs/openclaw.log"
    return json.dumps({"gateway": {"mode": "local"}, "logging": {"file": log}}, indent=2) + "\n"


def client_environment(gateway: ProcessFacts) -> dict[str, str]:
    """By which a command finds the gateway that runs."""
    port = next(each.port for each in gateway.ports if each.name == PORT)
    return {"OPENCLAW_GATEWAY_PORT": str(port), OPENCLAW_TOKEN: gateway.secrets.token or ""}
