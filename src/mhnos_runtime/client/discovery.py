"""Finds a runtime's address and token on this machine. Reads the environment and files; opens no socket."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit, urlunsplit

import msgspec

from mhnos_runtime.client.errors import ConnectFailed

DEFAULT_URL = "http://127.0.0.1:18790"
#: Source of an address that nothing names.
_DEFAULT = "default"


class Target(NamedTuple):
    """Where to connect and with which token; `source` says in words where the address came from."""

    url: str
    token: str | None
    source: str

    def __repr__(self) -> str:
        return f"Target(url={self.url!r}, source={self.source!r})"


def default_state_dir(env: Mapping[str, str]) -> str:
    """The directory in which `serve` keeps server.json and the token (XDG base directory specification)."""
    if chosen := env.get("MHNOS_STATE_DIR"):
        return chosen
    home = env.get("HOME") or os.path.expanduser("~")
    base = env.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):  # relative values are to be ignored, says the specification
        base = os.path.join(home, ".local", "state")
    return os.path.join(base, "mhnos-runtime")


def discover(
    url: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> Target:
    """Arguments over MHNOS_URL and MHNOS_TOKEN over the state directory of a runtime on this machine.

    The token of the state directory goes to loopback addresses only, since it must not leave this machine,
    and never to the default one: without a server.json no runtime runs, and whoever listens there is another.
    Raises ConnectFailed when a file that was named cannot be read or is empty, or the address makes no sense.
    """
    env = os.environ if env is None else env
    state_dir = default_state_dir(env)
    address, source = _find_url(url, env, state_dir)
    address, token_in_url = _split_url(address)
    token = token_in_url or env.get("MHNOS_TOKEN") if token_file is None else _read_token_file(token_file)
    if not token and source != _DEFAULT and _is_loopback(urlsplit(address).hostname or ""):
        token = _read_optional(os.path.join(state_dir, "token")).strip()
    return Target(address, token or None, source)


def _find_url(url: str | None, env: Mapping[str, str], state_dir: str) -> tuple[str, str]:
    if url:
        return url, "--url"
    if env.get("MHNOS_URL"):
        return env["MHNOS_URL"], "MHNOS_URL"
    path = os.path.join(state_dir, "server.json")
    try:
        found = msgspec.json.decode(_read_optional(path))["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return DEFAULT_URL, _DEFAULT
    return (found, path) if isinstance(found, str) else (DEFAULT_URL, _DEFAULT)


def _is_loopback(host: str) -> bool:
    """Other names, those below localhost too, are left to a resolver, which may lead elsewhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split_url(url: str) -> tuple[str, str | None]:
    """The address without its query, as http or https, and the token the query held."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in ("http", "https") or not parts.hostname:
        raise ConnectFailed(
            f"{parts.scheme}://{parts.hostname or ''} is not an address of a runtime",
            hint=f"an address looks like {DEFAULT_URL} or wss://host.example/",
            retry=False,
        )
    tokens = parse_qs(parts.query).get("token")
    return urlunsplit((scheme, parts.netloc, parts.path, "", "")), tokens[0] if tokens else None


def _read_token_file(path: str | os.PathLike[str]) -> str:
    """An empty one is an error: it must not mean the operator's token, which may do more."""
    try:
        token = _read(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectFailed(f"cannot read the token file {os.fspath(path)}: {error}", retry=False) from error
    if not token:
        raise ConnectFailed(f"the token file {os.fspath(path)} is empty", retry=False)
    return token


def _read_optional(path: str) -> str:
    try:
        return _read(path)
    except (OSError, UnicodeDecodeError):
        return ""


def _read(path: str | os.PathLike[str]) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
