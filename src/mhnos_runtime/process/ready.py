"""What is found out about a process after its start: whether it serves, and where. Data and rules; no I/O."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from mhnos_runtime import bounds

ReadyState = Literal["starting", "ready", "failed"]

#: Of a line that is searched for a pattern; what is longer is searched in pieces.
LINE_BYTES = 4096
#: Of one event on a control socket: workerd's are some 60 bytes.
EVENT_BYTES = 1024
#: Ports of one process that are told.
MAX_PORTS = 64
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Readiness:
    """reason: why it failed, or ""."""

    state: ReadyState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """address: where it can be reached from the machine; "" when only the process's own network reaches it.
    url: where it is known to speak HTTP."""

    name: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    address: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """What to look for, with everything filled in: it is kept beside the process for the next server.

    events: on the control socket. outside: whether the machine can reach the ports of the process's network.
    """

    line: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    url: str = ""
    events: bool = False
    outside: bool = True
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=bounds.MAX_MS)] = 60_000


def port(name: str, number: int, address: str = LOOPBACK) -> Port:
    """Those that are called after a protocol speak it."""
    shown = f"[{address}]" if ":" in address else address
    url = f"{name}://{shown}:{number}" if address and name in ("http", "https") else ""
    return Port(name, number, address, url)


#: Colours and the like (ECMA-48, SGR), which some programs write to pipes too.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class LineSearch:
    """Looks for a pattern in the lines, without their colours, of two streams that come in pieces."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern)
        self._rest: dict[int, str] = {}
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}

    def feed(self, stream: int, data: bytes) -> bool:
        """Whether a line that these bytes complete matches."""
        decoder = self._decoders.setdefault(stream, codecs.getincrementaldecoder("utf-8")("replace"))
        *lines, rest = (self._rest.get(stream, "") + decoder.decode(data)).split("\n")
        if len(rest) > LINE_BYTES:
            lines.append(rest)
            rest = ""
        self._rest[stream] = rest
        return any(self._pattern.search(_COLOUR.sub("", line[:LINE_BYTES]).rstrip("\r")) for line in lines)

    def skip(self) -> None:
        """Bytes are missing here."""
        self._rest.clear()
        self._decoders.clear()


class ControlEvents:
    """The lines that a program writes to its control descriptor: where it listens. The form is workerd's."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Port]:
        """Ports told by complete lines, the last ones of their names and no more than are kept; what makes no
        sense is left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[: EVENT_BYTES + 1]
        told = {found.name: found for line in lines if (found := _listening(line)) is not None}
        return list(told.values())[-MAX_PORTS:]


def _listening(line: bytes) -> Port | None:
    if len(line) > EVENT_BYTES:
        return None
    try:
        told = json.loads(line)
        if told["event"] != "listen":
            return None
        name, number = told["socket"], told["port"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Port(name, number, "") if _is_name(name) and _is_port(number) else None


def _is_name(name: object) -> bool:
    """Printable, since it is shown, and short, since it is kept: see bounds.FOUND_BYTES."""
    return isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= bounds.TOLD_NAME_BYTES


def _is_port(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 < number < 65536


def merged(known: tuple[Port, ...], told: list[Port]) -> tuple[Port, ...]:
    """Ports by name: what the runtime made itself stays, what is told anew is replaced."""
    ports = {each.name: each for each in known}
    for each in told:
        if each.name not in ports or ports[each.name].port != each.port:
            ports[each.name] = each
    return tuple(ports.values())[:MAX_PORTS]


def reachable(address: str) -> str:
    """By which address a client on this machine reaches who listens on `address`."""
    return {"": "", "0.0.0.0": LOOPBACK, "::": LOOPBACK}.get(address, address)
