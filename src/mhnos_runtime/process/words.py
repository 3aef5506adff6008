"""What the words of a shell's start mean: which shell runs, and with which arguments. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from mhnos_runtime.errors import StartFailed

SHELLS = ("bash", "zsh", "fish", "dash", "ash", "ksh", "sh")

#: What a shell takes for one word whatever stands around it.
_PATH = re.compile(r"[\w./+-]+")
#: Runs its arguments as they are. Without `exec`, so that the shell's own commands (ulimit, type) work too: a
#: shell replaces itself by the last command of a -c anyway.
_AS_TYPED = '"$@"'
_ANNOUNCE = 'printf \'%s\\n\' "$0"; exec "$@"'

#: The path of a program by its name, or None.
Find = Callable[[str], str | None]


def named(command: str) -> str:
    """The shell that a command names, by its name or path (only the name counts), or ""."""
    # "ls -l /bin/bash" ends like the path of a shell, and is none.
    name = os.path.basename(command) if _PATH.fullmatch(command) else ""
    return name if name in SHELLS else ""


def is_interactive(command: str, args: Sequence[str]) -> bool:
    """Whether a shell is asked for that reads its commands from a person."""
    return not args and (not command or bool(named(command)))


def program(command: str, args: Sequence[str]) -> str:
    """The path of the program that the words start; "" where it is looked for, or only a shell can tell."""
    command, args = _without_dashes(command, args)
    is_path = "/" in command and (bool(args) or bool(_PATH.fullmatch(command)))
    return command if is_path and not named(command) and not command.startswith("-") else ""


def argv(
    find: Find, command: str, args: Sequence[str], *, terminal: bool, banner: str = ""
) -> tuple[str, ...]:
    """banner: told at the start. Raises StartFailed where the machine has no shell."""
    words = _argv(find, *_without_dashes(command, args), terminal)
    return (_shell(find, "sh"), "-c", _ANNOUNCE, banner, *words) if banner else words


def _argv(find: Find, command: str, args: tuple[str, ...], terminal: bool) -> tuple[str, ...]:
    name = named(command)
    if is_interactive(command, args):
        return (_shell(find, name or "bash"), *(["-i"] if terminal else []))
    if name and (found := find(name)):
        return (found, *args)
    shell = _shell(find, "bash")
    if not command or command.startswith("-"):
        return (shell, *([command] if command else []), *args)
    own_name = os.path.basename(shell)
    return (shell, "-c", *((_AS_TYPED, own_name, command, *args) if args else (command, own_name)))


def for_more(find: Find, command: str, args: Sequence[str]) -> str:
    """The shell that programs on this terminal start when they are asked for one: the one that runs there,
    else as without a command. Raises StartFailed."""
    return _shell(find, (named(command) if is_interactive(command, args) else "") or "bash")


def _without_dashes(command: str, args: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """`--` ends the options of who passes the words on."""
    return (args[0], tuple(args[1:])) if command == "--" and args else (command, tuple(args))


def _shell(find: Find, name: str) -> str:
    found = find(name) or find("sh")
    if found is None:
        raise StartFailed("no shell on this machine", code="not-found", hint="install bash")
    return found
