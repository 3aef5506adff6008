"""Where a process will listen: sockets and ports that its kind or the client names, and how it will be known
that it serves. Opens sockets of loopback; starts nothing and waits for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process import ready, template
from mhnos_runtime.process.kind import Kind
from mhnos_runtime.server.processes.ports import MOST, Handed, free, listen


@dataclass(frozen=True, slots=True)
class Listening:
    """ports: what is known of them at the start. watch: what to watch for; None: nobody looks."""

    ports: tuple[ready.Port, ...]
    watch: ready.Watch | None


def open_ports(
    kind: Kind, asked: Mapping[str, int], named: tuple[str, ...], handed: Handed, outside: bool
) -> None:
    """Hand over a socket, or pick a number, for each name in the kind's templates and in `named` (sockets).

    asked: numbers by name, 0 for any. outside: whether the machine can reach the process's network. Raises
    InvalidRequest for a name that the kind does not have and for too many, and as `ports.listen`.
    """
    sockets = dict.fromkeys((*template.found(kind.templates, "socket"), *named))
    numbers = template.found(kind.templates, "port")
    unknown = next((name for name in asked if name not in sockets and name not in numbers), None)
    if unknown is not None:
        known = ", ".join((*sockets, *numbers))
        raise InvalidRequest(
            f"ports: {kind.name} has no port {unknown!r}",
            hint=f"it has {known}" if known else "it has none with a name; what it opens itself needs none",
        )
    if len(sockets) + len(numbers) > MOST:
        raise InvalidRequest(f"ports: {kind.name} has more than {MOST} of them")
    for name in sockets:
        sock = listen(asked.get(name, 0))
        handed.ports[name] = sock.getsockname()[1]
        handed.sockets[name] = handed.add(sock.detach())
    for name in numbers:
        number = asked.get(name, 0)
        # In a network of the process's own every port is free.
        handed.ports[name] = number if number and not outside else free(number)


def listening(kind: Kind, handed: Handed, outside: bool) -> Listening:
    """What follows from the ports that were opened."""
    reachable = {name: outside or name in handed.sockets for name in handed.ports}
    watch = _watch(kind, handed, reachable, outside)
    url = watch.url if watch is not None else ""
    ports = (
        ready.port(name, number, ready.LOOPBACK if reachable[name] else "")
        for name, number in handed.ports.items()
    )
    return Listening(tuple(_with_url(port, url) for port in ports), watch)


def _with_url(port: ready.Port, url: str) -> ready.Port:
    """A port whose health is asked for by HTTP speaks HTTP."""
    start = f"http://{ready.LOOPBACK}:{port.port}"
    return replace(port, url=start) if port.address and url.startswith(f"{start}/") else port


def _watch(kind: Kind, handed: Handed, reachable: Mapping[str, bool], outside: bool) -> ready.Watch | None:
    """None where there is nothing to watch for, or nothing that could be seen from here."""
    wanted = kind.ready
    if wanted is None:
        return None
    named = {wanted.port} if wanted.port else set()
    named |= {name for what in ("port", "socket") for name in template.found((wanted.url,), what)}
    seen = all(reachable[name] for name in named)
    # In the URL both {port} and {socket} stand for the number of the port.
    url = template.fill(wanted.url, template.Values(ports=handed.ports, sockets=handed.ports)) if seen else ""
    port = handed.ports[wanted.port] if seen and wanted.port else 0
    line = "" if url or port else wanted.line
    if not (line or url or port or kind.events):
        return None
    return ready.Watch(line, port, url, kind.events, outside, round(wanted.timeout_seconds * 1000))
