"""Kinds that an operator declares in the config file: [kinds.NAME] tables to frozen data.

Knows the form of a declaration, not how a process is started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mhnos_runtime.bounds import PATTERN_CHARACTERS
from mhnos_runtime.errors import ConfigError

BUILT_IN_KINDS = ("node", "python", "shell", "workerd", "openclaw")
#: Placeholders in argv; some take a name behind a colon.
PLACEHOLDERS = ("{command}", "{args}", "{memory_mb}", "{home}", "{port}", "{socket}", "{token}")
#: Engines whose program `{engine:NAME}` stands for.
ENGINES = ("node", "workerd", "openclaw")
#: Limits that a kind can narrow: the first three of a process with its descendants, then of each of them.
LIMITS = ("memory_bytes", "tasks", "cpu_percent", "cpu_seconds", "file_bytes", "open_files")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}\Z")
_ENGINE = re.compile(r"\{engine:([^}]*)\}")
_NAMED = re.compile(r"\{(port|socket)(:[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?\}")
READY_SECONDS = 60.0
_MOST_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ReadySetting:
    """How to find out that a process serves. line: a pattern (`re.search`) for a line of its output; port:
    the name of a port that opens; url: a URL that answers 2xx. At most one of port and url; where the
    process's network cannot be reached from outside, line is used instead."""

    line: str = ""
    port: str = ""
    url: str = ""
    timeout_seconds: float = READY_SECONDS


@dataclass(frozen=True, slots=True)
class KindSetting:
    """argv, env: templates, see PLACEHOLDERS. {command} stands for the client's command, anywhere in an item;
    {args}, as an item of its own, for all its arguments. command: "script" is a path in the workspace, "text"
    is passed on unchanged.
    env: pairs of name and value, added to the environment of every process. limits: pairs of a name in LIMITS
    and a number. grace_seconds: time to end, if it is more than the operator's for all kinds.
    needed_memory_bytes: not started with less. single: one at a time."""

    name: str
    argv: tuple[str, ...]
    pty: bool = False
    env: tuple[tuple[str, str], ...] = ()
    command: Literal["script", "text"] = "script"
    description: str = ""
    limits: tuple[tuple[str, int], ...] = ()
    ready: ReadySetting | None = None
    grace_seconds: float = 0.0
    needed_memory_bytes: int = 0
    single: bool = False

    def to_plain(self) -> dict[str, object]:
        """The table without its name, as `parse_kinds` reads it."""
        table = asdict(self)
        del table["name"]
        del table["ready"]
        if self.ready is not None:
            table["ready"] = {key: value for key, value in asdict(self.ready).items() if value}
        return {**table, "argv": list(self.argv), "env": dict(self.env), "limits": dict(self.limits)}


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the known word that is closest, or ''."""
    # Imported here: a start without mistakes does not need it.
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def parse_kinds(value: object, source: str) -> tuple[KindSetting, ...]:
    """The [kinds] table. source: its file, for messages. Raises ConfigError."""
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
    setting = KindSetting(name, **values)
    _check_ports(setting, where)
    return setting


def _check_ports(setting: KindSetting, where: str) -> None:
    """Ports that `ready` names must be among those of argv and env."""
    texts = (*setting.argv, *(text for _name, text in setting.env))
    ports = {match[2] for text in texts for match in _NAMED.finditer(text)}
    ready = setting.ready or ReadySetting()
    wanted = {match[2] for match in _NAMED.finditer(ready.url)}
    if ready.port:
        wanted.add(None if ready.port == "main" else f":{ready.port}")
    for name in wanted - ports:
        shown = f"{{port{name or ''}}}"
        raise ConfigError(f"{where}: ready needs {shown}, which neither argv nor env has")


def _argv(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(_is_text(item) for item in value):
        raise ConfigError(f"{where} is {value!r}; expected a list of at least one text")
    named = _NAMED.search(value[0])
    if not value[0] or named or any(placeholder in value[0] for placeholder in PLACEHOLDERS):
        raise ConfigError(f"{where} begins with {value[0]!r}; expected the program's name or path")
    for item in value:
        _check_placeholders(item, where)
    if value.count("{args}") > 1:
        raise ConfigError(f"{where} has {{args}} twice; expected it at most once")
    return tuple(value)


def _check_placeholders(item: str, where: str) -> None:
    for name in _ENGINE.findall(item):
        if name not in ENGINES:
            raise ConfigError(
                f"{where} has {{engine:{name}}}{nearest(name, ENGINES)}; known: {', '.join(ENGINES)}"
            )
    if "{args}" in item and item != "{args}":
        raise ConfigError(f"{where} has {item!r}; expected {{args}} as an item of its own")
    if _PLACEHOLDER.match(item) and item not in PLACEHOLDERS:
        raise ConfigError(
            f"{where} has {item}{nearest(item, PLACEHOLDERS)}; known: {', '.join(PLACEHOLDERS)}"
        )


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


def _ready(value: object, where: str) -> ReadySetting:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f'{where} is {value!r}; expected a table such as {{ line = "listening" }}')
    for key in value:
        if key not in _READY_FIELDS:
            known = ", ".join(_READY_FIELDS)
            raise ConfigError(f"{where} has {key!r}{nearest(str(key), _READY_FIELDS)}; known: {known}")
    values: dict[str, Any] = {key: _READY_FIELDS[key](value[key], f"{where}.{key}") for key in value}
    ready = ReadySetting(**values)
    if ready.port and ready.url:
        raise ConfigError(f"{where} has port and url; expected one of them")
    if not (ready.line or ready.port or ready.url):
        raise ConfigError(f"{where}: expected line, port or url")
    return ready


def _pattern(value: object, where: str) -> str:
    try:
        if isinstance(value, str) and len(value) <= PATTERN_CHARACTERS:
            re.compile(value)
            return value
    except re.error as error:
        raise ConfigError(f"{where} is {value!r} ({error}); expected a regular expression") from None
    shown = f"{value!r:.100}"
    raise ConfigError(
        f"{where} is {shown}; expected a regular expression of at most {PATTERN_CHARACTERS} characters"
    )


def _port_name(value: object, where: str) -> str:
    if not isinstance(value, str) or not _NAMED.fullmatch(f"{{port:{value}}}"):
        raise ConfigError(f'{where} is {value!r}; expected the name of a port, "main" for {{port}}')
    return value


def _url(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > PATTERN_CHARACTERS or not _URL.match(value):
        raise ConfigError(
            f"{where} is {value!r}; expected a URL of this machine such as http://127.0.0.1:{{port}}/health"
        )
    return value


#: Only this machine, and only the process's own port.
_URL = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\]):\{(port|socket)(:[A-Za-z0-9_.-]+)?\}(/\S*)?\Z")


def _seconds(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST_SECONDS:
        raise ConfigError(f"{where} is {value!r}; expected seconds from above 0 to {_MOST_SECONDS}")
    return float(value)


def _memory(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ConfigError(f"{where} is {value!r}; expected a number of bytes")
    return value


def _grace(value: object, where: str) -> float:
    return 0.0 if value in (0, 0.0) and not isinstance(value, bool) else _seconds(value, where)


_READY_FIELDS: dict[str, Callable[[object, str], object]] = {
    "line": _pattern,
    "port": _port_name,
    "url": _url,
    "timeout_seconds": _seconds,
}


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
    "ready": _ready,
    "grace_seconds": _grace,
    "needed_memory_bytes": _memory,
    "single": _pty,
}
