"""Finds the value of each setting: flags over MHNOS_* variables over a TOML file over defaults.

Reads the environment it is given and the config file; changes nothing.
"""

from __future__ import annotations

import os
import pwd
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhnos_runtime.config.address import is_loopback
from mhnos_runtime.config.kinds import nearest, parse_kinds
from mhnos_runtime.config.table import BY_NAME, SETTINGS, Setting, Settings, UserEnvironment, xdg
from mhnos_runtime.config.values import Where
from mhnos_runtime.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/mhnos-runtime/config.toml")
CONFIG_VARIABLE = "MHNOS_CONFIG"
# Variables that are no settings: the config file's is read here, the others by the client of the command
# line.
OTHER_VARIABLES = (CONFIG_VARIABLE, "MHNOS_URL", "MHNOS_TOKEN", "MHNOS_TOKEN_FILE")


def load(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, tuple[str, ...]]:
    """The settings in force, and warnings, one line each.

    flags: by setting, as typed (a list for flags that repeat, a bool for switches); "config" is the config
    file; None and () mean not given. environ: default os.environ; an empty variable counts as not set. Raises
    ConfigError: one line that names the setting, its source, the value and what is allowed.
    """
    flags = {name: value for name, value in (flags or {}).items() if value is not None and value != ()}
    environ = os.environ if environ is None else environ
    user = UserEnvironment(environ, _home(environ))
    file, table = _read_file(flags, user)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        raw, sources[setting.name], folder = _find(setting, flags, user, file, table)
        values[setting.name] = setting.parse(raw, Where(folder, user.home), sources[setting.name])
    kinds = parse_kinds(table.get("kinds", {}), f"file {file}")
    sources.update({f"kinds.{kind.name}": f"file {file}:kinds.{kind.name}" for kind in kinds})
    settings = Settings(**values, kinds=kinds, sources=sources)
    _check_together(settings)
    return settings, _warnings(environ)


def find(name: str, environ: Mapping[str, str] | None = None) -> object:
    """One setting alone, without flags: what is wrong with the others does not matter. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    user, setting = UserEnvironment(environ, _home(environ)), BY_NAME[name]
    raw, source, folder = _find(setting, {}, user, *_read_file({}, user))
    return setting.parse(raw, Where(folder, user.home), source)


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def _find(
    setting: Setting,
    flags: Mapping[str, object],
    user: UserEnvironment,
    file: Path | None,
    table: Mapping[str, object],
) -> tuple[object, str, Path]:
    """The value as given, its source, and the folder of relative paths in it."""
    if setting.name in flags:
        return flags[setting.name], f"flag {setting.flag}", Path.cwd()
    if user.environ.get(setting.env):
        return user.environ[setting.env], f"variable {setting.env}", Path.cwd()
    if file is not None and setting.name in table:
        return table[setting.name], f"file {file}:{setting.name}", file.parent
    return setting.default_value(user), "default", Path("/")


def _read_file(
    flags: Mapping[str, object], user: UserEnvironment
) -> tuple[Path | None, Mapping[str, object]]:
    file = _find_file(flags, user)
    if file is None:
        return None, {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config file {file} is not UTF-8 text; expected TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config file {file} is not TOML: {str(error).splitlines()[0]}") from None
    for key in table:
        if key not in BY_NAME and key != "kinds":
            known = nearest(key, (*BY_NAME, "kinds"))
            raise ConfigError(f"config file {file}: unknown key {key!r}{known}")
    return file, table


def config_files(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """Where `load` looks for the config file. The first that exists is read."""
    environ = os.environ if environ is None else environ
    return _places_of_file(flags or {}, UserEnvironment(environ, _home(environ)))


def _places_of_file(flags: Mapping[str, object], user: UserEnvironment) -> tuple[Path, ...]:
    named = str(flags.get("config") or user.environ.get(CONFIG_VARIABLE, ""))
    if named:
        return (Path.cwd() / (user.home / named[2:] if named.startswith("~/") else named),)
    return xdg(user, "XDG_CONFIG_HOME", ".config") / "mhnos-runtime/config.toml", SYSTEM_CONFIG


def _find_file(flags: Mapping[str, object], user: UserEnvironment) -> Path | None:
    files = _places_of_file(flags, user)
    if len(files) == 1:
        # If a file that was asked for is missing, reading it raises the error.
        return files[0]
    return next((file for file in files if os.path.lexists(file)), None)


def _check_together(settings: Settings) -> None:
    """Checks values that depend on each other."""
    if settings.auth == "none" and not is_loopback(settings.host):
        raise ConfigError(
            f'auth is "none" by {settings.source("auth")}; expected token, since others than this machine '
            f'can reach host "{settings.host}" by {settings.source("host")}'
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given, missing = ("tls_cert", "tls_key") if settings.tls_cert else ("tls_key", "tls_cert")
        raise ConfigError(
            f"{given} is set by {settings.source(given)} without {missing}; expected both or none"
        )
    for name in ("tls_cert", "tls_key"):
        _check_readable(name, getattr(settings, name), settings.source(name))


def _check_readable(name: str, file: Path | None, source: str) -> None:
    try:
        if file is not None:
            file.open("rb").close()
    except OSError as error:
        raise ConfigError(
            f'{name} is "{file}" by {source}: {error.strerror}; expected a readable file'
        ) from None


def _warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = (*(setting.env for setting in SETTINGS), *OTHER_VARIABLES)
    unknown = sorted(name for name in environ if name.startswith("MHNOS_") and name not in known)
    lines = [f"variable {name} is not known and is ignored{nearest(name, known)}" for name in unknown]
    return tuple(lines)
