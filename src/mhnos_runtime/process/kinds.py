"""Kinds as data: what each one executes and how it is ended. Knows no request and no host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mhnos_runtime.config import KindSetting

#: How the client's command is read. script: a path in the workspace, unless it begins with "-"; text: as it
#: is;
#: shell: the name of a shell, or a command line for one.
Command = Literal["script", "text", "shell"]

#: What a terminal's programs get after SIGTERM, which an interactive shell ignores, and before SIGKILL.
HANG_UP_MS = 500


@dataclass(frozen=True, slots=True)
class Kind:
    """argv: a template; {command} and {memory_mb} stand anywhere in an item, {args} is an item of its own.

    An item with {command} goes when there is no command. pty: whether it gets a terminal when the request
    does not say. hang_up_ms: see HANG_UP_MS; it is for terminals only.
    """

    name: str
    argv: tuple[str, ...]
    pty: bool = False
    command: Command = "script"
    env: tuple[tuple[str, str], ...] = ()
    hang_up_ms: int = HANG_UP_MS
    limits: tuple[tuple[str, int], ...] = ()


BUILT_IN = (
    Kind("node", ("node", "--max-old-space-size={memory_mb}", "{command}", "{args}")),
    Kind("python", ("python3", "{command}", "{args}")),
    Kind("shell", (), pty=True, command="shell", hang_up_ms=0),
)

#: Kinds of protocol 1.0 that this version does not have yet.
NOT_YET = ("workerd", "openclaw")


def all_kinds(declared: Iterable[KindSetting]) -> dict[str, Kind]:
    """Built-in and declared kinds by name."""
    kinds = {kind.name: kind for kind in BUILT_IN}
    for setting in declared:
        kinds[setting.name] = Kind(
            setting.name, setting.argv, setting.pty, setting.command, setting.env, limits=setting.limits
        )
    return kinds
