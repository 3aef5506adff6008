"""Every setting as data, and the frozen Settings made of them.

Flags, variables, TOML keys, `mhnos-runtime config` and the table in the docs all come from SETTINGS. Does not
know how values are found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mhnos_runtime.config.kinds import KindSetting, nearest, parse_kinds
from mhnos_runtime.config.values import (
    GIB,
    KIB,
    MIB,
    TIB,
    ValueType,
    Where,
    Wrong,
    allowed_host,
    base_path,
    host,
    many,
    one_of,
    origin,
    path,
    plain,
    seconds,
    size,
    switch,
    text,
    whole_number,
)
from mhnos_runtime.errors import ConfigError

CONTAINER_WORKSPACE = Path("/workspace")
#: The user of processes cannot enter root's home.
ROOTS_WORKSPACE = Path("/var/lib/mhnos-runtime/workspace")
ROOTS_ENGINES = Path("/var/lib/mhnos-runtime/engines")

# characters of a wrong value that its one-line message shows
_SHOWN = 200


class UserEnvironment(NamedTuple):
    """The input of computed defaults."""

    environ: Mapping[str, str]
    home: Path


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. name: attribute, TOML key, and key in the flags given to `load`. default: a value, or a
    function of a UserEnvironment with default_text for help. type.switch (--x and --no-x), type.many (may be
    repeated) and type.metavar make the form of the flag; `load` checks its text. of_client: `run` and
    `attach` read it and have the flag, not `serve`. reloads: a reload applies a change; for the others it
    takes a new start."""

    name: str
    type: ValueType
    default: object | Callable[[UserEnvironment], object]
    help: str
    variable: str = ""
    default_text: str = ""
    of_client: bool = False
    reloads: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        return self.variable or f"MHNOS_{self.name.upper()}"

    def default_value(self, user: UserEnvironment) -> object:
        return self.default(user) if callable(self.default) else self.default

    def flag_help(self) -> str:
        return f"{self.help} ({self.env}; default: {self.default_shown()})"

    def default_shown(self) -> str:
        return self.default_text or self.type.show(self.default) or "none"

    def parse(self, value: object, where: Where, source: str) -> object:
        """Raises ConfigError, one line that names setting, value, source and what is allowed."""
        try:
            return self.type.parse(value, where)
        except Wrong as wrong:
            # What a flag that may be repeated was given comes as a tuple.
            shown = (", ".join(map(str, value)) if isinstance(value, tuple) else str(value))[:_SHOWN]
            detail = f" ({wrong})" if str(wrong) else nearest(shown.strip().lower(), self.type.words)
            raise ConfigError(
                f"{self.name} is {json.dumps(shown)} by {source}{detail}; expected {self.type.allowed}"
            ) from None


def default_workspace(user: UserEnvironment) -> Path:
    usable = os.access(CONTAINER_WORKSPACE, os.W_OK | os.X_OK, effective_ids=True)
    if usable and CONTAINER_WORKSPACE.is_dir():
        return CONTAINER_WORKSPACE
    if _is_root(user):
        return ROOTS_WORKSPACE
    return user.home / "mhnos-workspace"


def default_state_dir(user: UserEnvironment) -> Path:
    return xdg(user, "XDG_STATE_HOME", ".local/state") / "mhnos-runtime"


def default_engines_dir(user: UserEnvironment) -> Path:
    if _is_root(user):
        return ROOTS_ENGINES
    return xdg(user, "XDG_DATA_HOME", ".local/share") / "mhnos-runtime" / "engines"


def _is_root(user: UserEnvironment) -> bool:
    return os.geteuid() == 0 and user.home == Path("/root")


def xdg(user: UserEnvironment, variable: str, fallback: str) -> Path:
    """A base directory. Relative values are ignored (XDG Base Directory Specification)."""
    value = user.environ.get(variable, "")
    return Path(value) if value.startswith("/") else user.home / fallback


_LEVEL = one_of("debug", "info", "warning", "error", also={"warn": "warning", "err": "error"})
_KINDS_OF_HOST = "host names or addresses, each with or without a port"

SETTINGS: tuple[Setting, ...] = (
    Setting("host", host(), "127.0.0.1", "address to listen on; any of loopback means 127.0.0.1 and ::1"),
    Setting(
        "port",
        whole_number(0, 65535),
        18790,
        "port to listen on; 0 takes any free one",
        variable="MHNOS_RUNTIME_PORT",
    ),
    Setting("base_path", base_path(), "/", "path below which everything is served, as behind a hub or proxy"),
    Setting(
        "workspace",
        path(),
        default_workspace,
        "folder that processes and clients share",
        default_text="/workspace where it exists and is writable, else ~/mhnos-workspace "
        "(root: /var/lib/mhnos-runtime/workspace)",
    ),
    Setting(
        "state_dir",
        path(),
        default_state_dir,
        "folder for the token and the output logs",
        default_text="$XDG_STATE_HOME/mhnos-runtime, else ~/.local/state/mhnos-runtime",
    ),
    Setting(
        "engines_dir",
        path(),
        default_engines_dir,
        "folder for the programs that `mhnos-runtime engines` installs",
        default_text="$XDG_DATA_HOME/mhnos-runtime/engines, else ~/.local/share/mhnos-runtime/engines "
        "(root: /var/lib/mhnos-runtime/engines)",
    ),
    Setting(
        "sandbox",
        one_of("strict", "relaxed", "none"),
        "strict",
        "isolation of processes; the runtime does not start where the machine cannot give it",
    ),
    Setting(
        "network",
        one_of("host", "loopback", "none"),
        "host",
        "network of processes: the machine's, one among themselves, or none",
    ),
    Setting(
        "user",
        text("a user's name, or UID or UID:GID", "USER"),
        "",
        "whom processes run as when root starts the runtime",
        default_text="the workspace's owner, else mhnos, else an unused one",
    ),
    Setting("allow_root", switch(), False, "let processes run as root; only with sandbox none"),
    Setting("allow_openclaw", switch(), False, "let clients start the openclaw kind"),
    Setting("max_processes", whole_number(1, 100_000), 50, "how many processes may run at once"),
    Setting("max_memory", size(16 * MIB, 16 * TIB), GIB, "memory that one process may use, with descendants"),
    Setting(
        "max_tasks",
        whole_number(0, 4_194_304),
        1024,
        "processes and threads that one process may have; 0: no limit",
    ),
    Setting(
        "max_cpu", whole_number(0, 100_000), 0, "share of CPU for one process, 100: one CPU; 0: no limit"
    ),
    Setting("max_cpu_seconds", whole_number(0, 2**31), 0, "CPU time that one process may use; 0: no limit"),
    Setting("max_open_files", whole_number(0, 2**20), 0, "files that one process may open; 0: no limit"),
    Setting("max_file_size", size(0, 16 * TIB), 0, "size of a file that a process writes; 0: no limit"),
    Setting(
        "min_free",
        size(0, 16 * TIB),
        256 * MIB,
        "space on the workspace's disk that clients' files leave free; 0: none",
    ),
    Setting(
        "trash_seconds",
        seconds(0, 31_536_000),
        604_800.0,
        "how long what clients remove can be had back; 0: it is removed at once",
    ),
    Setting("log_level", _LEVEL, "info", "least severe lines to log"),
    Setting(
        "log_format",
        one_of("auto", "text", "json"),
        "auto",
        "form of log lines; auto is text on a terminal, else json",
    ),
    Setting("auth", one_of("token", "none"), "token", "what clients must show; none only on loopback"),
    Setting(
        "show_token",
        switch(),
        False,
        "show a token that the runtime made itself at the start, also where that is no terminal but a log",
    ),
    Setting(
        "allow_origin",
        many(origin, "origins such as https://desk.example.com, or null", "ORIGIN"),
        (),
        "web origin that may connect, beside this server's own; a reload applies changes",
        reloads=True,
    ),
    Setting(
        "allow_host",
        many(allowed_host, _KINDS_OF_HOST, "HOST"),
        (),
        "Host header to accept, beside loopback names and the address listened on; a reload applies changes",
        reloads=True,
    ),
    Setting("tls_cert", path(optional=True), None, "certificate chain (PEM); needs tls_key"),
    Setting("tls_key", path(optional=True), None, "private key (PEM); needs tls_cert"),
    Setting("retention_bytes", size(64 * KIB, GIB), MIB, "output kept for each process"),
    Setting("retain_seconds", seconds(0, 604_800), 600.0, "how long an ended process is kept"),
    Setting("retain_count", whole_number(0, 100_000), 256, "how many ended processes are kept"),
    Setting("stall_seconds", seconds(0, 3600), 10.0, "how long an unread viewer may hold a process up"),
    Setting("kill_grace_seconds", seconds(0, 3600), 5.0, "how long a process may take to end before SIGKILL"),
    Setting(
        "window_size",
        one_of("latest", "smallest", "largest"),
        "latest",
        "whose size a terminal has that several clients show: of the one that came or changed last, or the "
        "smallest or largest of all, as in tmux",
    ),
    Setting(
        "detach_keys",
        text("keys such as ctrl-p,ctrl-q or ctrl-],x; none for no keys", "KEYS"),
        "ctrl-p,ctrl-q",  # docker's, so that fingers need not learn others
        "keys by which `run` and `attach` leave a process alone",
        of_client=True,
    ),
)
BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. Sizes are bytes, paths absolute. sources: where each value came from, by name:
    "flag --port", "variable MHNOS_RUNTIME_PORT", "file /path:port" or "default"; and "config": the file that
    was read, if there was one. Holds no secret."""

    host: str
    port: int
    base_path: str
    workspace: Path
    state_dir: Path
    engines_dir: Path
    sandbox: Literal["strict", "relaxed", "none"]
    network: Literal["host", "loopback", "none"]
    user: str
    allow_root: bool
    allow_openclaw: bool
    max_processes: int
    max_memory: int
    max_tasks: int
    max_cpu: int
    max_cpu_seconds: int
    max_open_files: int
    max_file_size: int
    min_free: int
    trash_seconds: float
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["auto", "text", "json"]
    auth: Literal["token", "none"]
    show_token: bool
    allow_origin: tuple[str, ...]
    allow_host: tuple[str, ...]
    tls_cert: Path | None
    tls_key: Path | None
    retention_bytes: int
    retain_seconds: float
    retain_count: int
    stall_seconds: float
    kill_grace_seconds: float
    window_size: Literal["latest", "smallest", "largest"]
    detach_keys: str
    kinds: tuple[KindSetting, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)

    def source(self, name: str) -> str:
        return self.sources.get(name, "default")

    def to_json(self) -> str:
        """One line of text for another process, which reads it with `from_json`."""
        values = {setting.name: plain(getattr(self, setting.name)) for setting in SETTINGS}
        kinds = {kind.name: kind.to_plain() for kind in self.kinds}
        return json.dumps({"settings": values, "kinds": kinds, "sources": dict(self.sources)})

    @staticmethod
    def from_json(text: str) -> Settings:
        """What another process, maybe of another version, made by `to_json`. A setting that is missing has
        its default; one that is not known is ignored. Raises ConfigError when the text is something else, or
        a value is not allowed."""
        try:
            data = json.loads(text)
            values, kinds = dict(data["settings"]), dict(data.get("kinds", {}))
            sources = {str(name): str(source) for name, source in data.get("sources", {}).items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigError(f"settings handed over are damaged: {error!r}") from None
        where, user = Where(Path("/"), Path("/")), UserEnvironment(os.environ, Path("/"))
        parsed: dict[str, Any] = {
            setting.name: setting.parse(
                values[setting.name] if setting.name in values else setting.default_value(user),
                where,
                "hand-over",
            )
            for setting in SETTINGS
        }
        return Settings(**parsed, kinds=parse_kinds(kinds, "hand-over"), sources=sources)


class SettingRow(NamedTuple):
    name: str
    value: str
    source: str
    help: str


def describe(settings: Settings) -> list[SettingRow]:
    """All settings with values and sources, in the order of the table; kinds last."""
    rows = [
        SettingRow(
            item.name, item.type.show(getattr(settings, item.name)), settings.source(item.name), item.help
        )
        for item in SETTINGS
    ]
    for kind in settings.kinds:
        source = settings.source(f"kinds.{kind.name}")
        rows.append(SettingRow(f"kinds.{kind.name}", " ".join(kind.argv), source, kind.description))
    return rows


def docs_table() -> str:
    """The settings as a Markdown table, for docs/operations.md."""
    lines = [
        "| setting | flag | variable | default | allowed | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for item in SETTINGS:
        cells = (
            f"`{item.name}`",
            f"`{item.flag}`",
            f"`{item.env}`",
            item.default_shown(),
            item.type.allowed,
            item.help,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
