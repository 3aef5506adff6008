"""Finds the value of each setting, at the start and again later: flags over MHNOS_* variables over a TOML
file over defaults.

Reads the environment it is given and the config file; changes nothing.
"""

from __future__ import annotations

import os
import pwd
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mhnos_runtime.config.address import is_loopback
from mhnos_runtime.config.kinds import nearest, parse_kinds
from mhnos_runtime.config.table import BY_NAME, SETTINGS, Setting, Settings, UserEnvironment, xdg
from mhnos_runtime.config.values import Where, plain
from mhnos_runtime.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/mhnos-runtime/config.toml")
CONFIG_VARIABLE = "MHNOS_CONFIG"
#: Where the sources of settings name the file that was read.
_FILE = "config"
# Variables that are no settings: the config file's is read here, the others by the client of the command
# line.
OTHER_VARIABLES = (CONFIG_VARIABLE, "MHNOS_URL", "MHNOS_TOKEN", "MHNOS_TOKEN_FILE")


#: Sources of what somebody typed for one start: the FOLDER of `serve` is an argument.
_TYPED = ("flag ", "argument ")


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
    given = _by_variables(SETTINGS, environ)
    given |= {
        each.name: Given(flags[each.name], f"flag {each.flag}", Path.cwd())
        for each in SETTINGS
        if each.name in flags
    }
    return _settings(given, str(flags.get("config", "")), user), _warnings(environ)


def load_again(
    running: Settings, told: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """What a start with the flags and variables of the start of `running` would use now.

    told: variables that a reload brings, of settings that it may change. environ: for the places of files;
    default os.environ. Raises ConfigError as `load`.
    """
    environ = os.environ if environ is None else environ
    user = UserEnvironment(environ, _home(environ))
    given = {
        each.name: Given(plain(getattr(running, each.name)), running.source(each.name), Path("/"))
        for each in SETTINGS
        if running.source(each.name).startswith((*_TYPED, "variable "))
    }
    brought = _by_variables([each for each in SETTINGS if each.reloads], told or {})
    given |= {name: each for name, each in brought.items() if not running.source(name).startswith(_TYPED)}
    return _settings(given, running.sources.get(_FILE, ""), user)


class Given(NamedTuple):
    """The value of a setting by a flag or variable as it was typed, where that is, and the folder of relative
    paths in it."""

    raw: object
    source: str
    folder: Path


def _by_variables(settings: Iterable[Setting], environ: Mapping[str, str]) -> dict[str, Given]:
    return {
        each.name: Given(environ[each.env], f"variable {each.env}", Path.cwd())
        for each in settings
        if environ.get(each.env)
    }


def _settings(given: Mapping[str, Given], named: str, user: UserEnvironment) -> Settings:
    """named: the config file, "" to look for it."""
    file, table = _read_file(named, user)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        raw, sources[setting.name], folder = given.get(setting.name) or _find(setting, user, file, table)
        values[setting.name] = setting.parse(raw, Where(folder, user.home), sources[setting.name])
    kinds = parse_kinds(table.get("kinds", {}), f"file {file}")
    sources.update({f"kinds.{kind.name}": f"file {file}:kinds.{kind.name}" for kind in kinds})
    if file is not None:
        sources[_FILE] = str(file)
    settings = Settings(**values, kinds=kinds, sources=sources)
    _check_together(settings)
    return settings


def find(name: str, environ: Mapping[str, str] | None = None) -> object:
    """One setting alone, without flags: what is wrong with the others does not matter. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    user, setting = UserEnvironment(environ, _home(environ)), BY_NAME[name]
    given = _by_variables([setting], environ).get(name) or _find(setting, user, *_read_file("", user))
    return setting.parse(given.raw, Where(given.folder, user.home), given.source)


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def _find(setting: Setting, user: UserEnvironment, file: Path | None, table: Mapping[str, object]) -> Given:
    """By the file, or the default."""
    if file is not None and setting.name in table:
        return Given(table[setting.name], f"file {file}:{setting.name}", file.parent)
    return Given(setting.default_value(user), "default", Path("/"))


def _read_file(named: str, user: UserEnvironment) -> tuple[Path | None, Mapping[str, object]]:
    file = _find_file(named, user)
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
    named = str((flags or {}).get("config") or "")
    return _places_of_file(named, UserEnvironment(environ, _home(environ)))


def _places_of_file(named: str, user: UserEnvironment) -> tuple[Path, ...]:
    named = named or user.environ.get(CONFIG_VARIABLE, "")
    if named:
        return (Path.cwd() / (user.home / named[2:] if named.startswith("~/") else named),)
    return xdg(user, "XDG_CONFIG_HOME", ".config") / "mhnos-runtime/config.toml", SYSTEM_CONFIG


def _find_file(named: str, user: UserEnvironment) -> Path | None:
    files = _places_of_file(named, user)
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
