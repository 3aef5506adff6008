"""Placeholders in the argv and environment of a kind: which there are, and how they are filled. Pure.

{command}      what the client names; an item with it goes where there is none
{args}         an item of its own, stands for all of the client's arguments
{memory_mb}    the memory limit in MiB
{home}         the workspace as the process sees it
{port}         number of a free port of loopback that the runtime picks; {port:NAME} for several
{socket}       number of a descriptor: a socket that listens on loopback already; {socket:NAME} for several
{token}        a random text that the runtime makes for this process, and tells to nobody but its clients
{engine:NAME}  path of an engine's program
{control}      number of a descriptor on which the program tells where it listens
{name:*}       of a socket that the client names: an item with it comes once for each, with its {socket:*}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mhnos_runtime.config.kinds import ENGINES

#: The name of `{port}` and `{socket}` without one.
MAIN = "main"

#: What a port may be called: by operators, by clients, and in workerd's configs.
PORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_PLACEHOLDER = re.compile(
    r"\{(command|memory_mb|home|token|control|(?:port|socket)(?::[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?"
    rf"|engine:(?:{'|'.join(ENGINES)}))\}}"
)


@dataclass(frozen=True, slots=True)
class Values:
    """What stands for placeholders. ports, sockets: number by name; named: which of the sockets the client
    has named. engines: path by name. control: 0 where there is none."""

    command: str = ""
    args: tuple[str, ...] = ()
    memory_mb: int = 0
    home: str = ""
    token: str = ""
    control: int = 0
    ports: Mapping[str, int] = field(default_factory=dict)
    sockets: Mapping[str, int] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    engines: Mapping[str, str] = field(default_factory=dict)


def found(texts: Iterable[str], what: str) -> tuple[str, ...]:
    """The names behind {what} and {what:NAME} in the texts, each once, in order."""
    names = [
        name or MAIN
        for text in texts
        for key, _, name in (match[1].partition(":") for match in _PLACEHOLDER.finditer(text))
        if key == what
    ]
    return tuple(dict.fromkeys(names))


def fill(text: str, values: Values) -> str:
    """In one go: what a client's command contains is not looked at again."""
    return _PLACEHOLDER.sub(lambda match: _value(match[1], values), text)


def fill_all(argv: Iterable[str], values: Values) -> list[str]:
    items: list[str] = []
    for item in argv:
        if item == "{args}":
            items.extend(values.args)
        elif "{name:*}" in item:
            items.extend(
                item.replace("{name:*}", name).replace("{socket:*}", str(values.sockets[name]))
                for name in values.named
            )
        elif values.command or "{command}" not in item:
            items.append(fill(item, values))
    return items


def _value(placeholder: str, values: Values) -> str:
    key, _, name = placeholder.partition(":")
    if key == "port":
        return str(values.ports[name or MAIN])
    if key == "socket":
        return str(values.sockets[name or MAIN])
    if key == "engine":
        return values.engines[name]
    if key == "control" and not values.control:
        return "{control}"
    return str(getattr(values, key))
