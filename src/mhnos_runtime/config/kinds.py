"""Kinds of processes that an operator declares in the config file: [kinds.NAME] tables to frozen data.

Knows the shape of a declaration; knows nothing of how a process is started.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mhnos_runtime.errors import ConfigError

BUILT_IN_KINDS = ("node", "python", "shell", "workerd", "openclaw")
PLACEHOLDERS = ("{command}", "{args}")
#: What the operator's limits can be narrowed to: for a process with its descendants, then for each of them.
LIMITS = ("memory_bytes", "tasks", "cpu_percent", "cpu_seconds", "file_bytes", "open_files")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}\Z")


@dataclass(frozen=True, slots=True)
class KindSetting:
    """argv: {command} stands for the client's command, anywhere in an item; {args}, an item of its own, for
    all its arguments. command: "script" is a path in the workspace, "text" is passed on as it is.
    env: pairs of name and value, added to what every process gets. limits: pairs of a name in LIMITS and a
    number."""

    name: str
    argv: tuple[str, ...]
    pty: bool = False
    env: tuple[tuple[str, str], ...] = ()
    command: Literal["script", "text"] = "script"
    description: str = ""
    limits: tuple[tuple[str, int], ...] = ()

    def to_plain(self) -> dict[str, object]:
        """The table that `parse_kind` reads, without the name."""
        table = asdict(self)
        del table["name"]
        return {**table, "argv": list(self.argv), "env": dict(self.env), "limits": dict(self.limits)}


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the known word that is closest, or ''."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def parse_kinds(value: object, source: str) -> tuple[KindSetting, ...]:
    """The [kinds] table. source: where it stands, for messages. Raises ConfigError."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"kinds in {source}: expected tables such as [kinds.deno]")
    return tuple(parse_kind(str(name), table, source) for name, table in value.items())


def parse_kind(name: str, table: object, source: str) -> KindSetting:
    where = f"kinds.{name} in {source}"
    if not _NAME.match(name):
        raise ConfigError(
            f"kinds.{name!r} in {source}: "
            "expected a name of at most 32 of a-z, 0-9, _ and -, starting with a letter"
        )
    if name in BUILT_IN_KINDS:
        raise ConfigError(f"{where}: {name} is built in; expected another name")
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected a table with argv")
    for key in table:
        if key not in _FIELDS:
            raise ConfigError(
                f"{where}: unknown key {key!r}{nearest(str(key), _FIELDS)}; known: {', '.join(_FIELDS)}"
            )
    if "argv" not in table:
        example = '["deno", "run", "{command}", "{args}"]'
        raise ConfigError(f"{where}: argv is missing; expected a list such as {example}")
    values: dict[str, Any] = {key: _FIELDS[key](value, f"{where}: {key}") for key, value in table.items()}
    return KindSetting(name, **values)


def _argv(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(_is_text(item) for item in value):
        raise ConfigError(f"{where} is {value!r}; expected a list of at least one text")
    if not value[0] or any(placeholder in value[0] for placeholder in PLACEHOLDERS):
        raise ConfigError(f"{where} begins with {value[0]!r}; expected the program's name or path")
    for item in value:
        _check_placeholders(item, where)
    if value.count("{args}") > 1:
        raise ConfigError(f"{where} has {{args}} twice; expected it at most once")
    return tuple(value)


def _check_placeholders(item: str, where: str) -> None:
    if "{args}" in item and item != "{args}":
        raise ConfigError(f"{where} has {item!r}; expected {{args}} as an item of its own")
    if _PLACEHOLDER.match(item) and item not in PLACEHOLDERS:
        raise ConfigError(f"{where} has {item}{nearest(item, PLACEHOLDERS)}; known: {{command}}, {{args}}")


def _pty(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where} is {value!r}; expected true or false")
    return value


def _env(value: object, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r}; expected a table of texts")
    for name, text in value.items():
        if not _VARIABLE.match(str(name)) or not _is_text(text):
            raise ConfigError(f"{where} has {name!r} = {text!r}; expected a variable's name and a text")
    return tuple(sorted(value.items()))


def _limits(value: object, where: str) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r}; expected a table such as {{ cpu_seconds = 60 }}")
    for name, number in value.items():
        if name not in LIMITS:
            raise ConfigError(f"{where} has {name!r}{nearest(str(name), LIMITS)}; known: {', '.join(LIMITS)}")
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 1 << 62:
            raise ConfigError(f"{where} has {name} = {number!r}; expected a whole number above 0")
    return tuple(sorted(value.items()))


def _command(value: object, where: str) -> str:
    if value not in ("script", "text"):
        raise ConfigError(f'{where} is {value!r}; expected "script" (a path in the workspace) or "text"')
    return str(value)


def _description(value: object, where: str) -> str:
    if not isinstance(value, str) or "\n" in value:
        raise ConfigError(f"{where} is {value!r}; expected one line of text")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


_FIELDS: dict[str, Callable[[object, str], object]] = {
    "argv": _argv,
    "pty": _pty,
    "env": _env,
    "command": _command,
    "description": _description,
    "limits": _limits,
}
_KEYS = ", ".join(_FIELDS)
