"""The token: made once, kept in a file that only its owner can read, compared in constant time.

Knows the file and what a token looks like; knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

from mhnos_runtime.config import ConfigError, ensure_state_dir

FILE_NAME = "token"
#: SHA-256 of the token that the runtime made, beside it: tells it from one that an operator put there.
MADE_NAME = "token.made"
TOKEN_BYTES = 32

# What fits unescaped into a header, a query and a subprotocol (RFC 9110, 5.6.2; RFC 3986, 2.3). An operator
# may put a token of their own into the file.
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{32,256}\Z")
MAX_TOKEN_CHARS = 256

# File times advance in ticks of up to 10 ms: a file that was younger than this when it was read may change
# again without its times showing it.
_YOUNG_NS = 50_000_000

_Signature = tuple[int, int, int, int, int]


def token_path(state_dir: Path) -> Path:
    return state_dir / FILE_NAME


def ensure_token(state_dir: Path) -> Path:
    """The token's file, made with a new token when it is missing; of several that start at once one wins.

    Raises ConfigError when the state directory or an existing file is not fit to hold a secret.
    """
    path = token_path(ensure_state_dir(state_dir))
    if not os.path.lexists(path):
        draft = _write_draft(path)
        try:
            # Unlike a rename, a link never replaces what another start has just made.
            os.link(draft, path)
            _note_made(path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
        _sync_folder(path.parent)
    read_token(state_dir)
    return path


def rotate_token(state_dir: Path) -> str:
    """Put a new token in the place of the old one, which stops working at once. Returns the new one.

    Raises ConfigError when the state directory is not fit to hold a secret, or the file is mounted there.
    """
    path = token_path(ensure_state_dir(state_dir))
    draft = _write_draft(path)
    try:
        os.rename(draft, path)
    except OSError as error:
        os.unlink(draft)
        hint = "change the file that is mounted there, and start again"
        raise ConfigError(f"token file {path} cannot be replaced: {error.strerror}", hint=hint) from None
    _note_made(path)
    _sync_folder(path.parent)
    return read_token(state_dir)


def read_token(state_dir: Path) -> str:
    """The token. Raises ConfigError, with a hint, when the file is missing, readable by others or damaged."""
    return _read(token_path(state_dir))[0]


def is_made_here(state_dir: Path) -> bool:
    """Whether the token in force is one that the runtime made. Raises ConfigError as `read_token` does."""
    token = read_token(state_dir)
    try:
        noted = (state_dir / MADE_NAME).read_bytes()
    except OSError:
        return False
    return hmac.compare_digest(noted, _digest(token).hex().encode())


def _note_made(path: Path) -> None:
    """Without the note, as after a crash in between, a token only counts as the operator's."""
    note = path.with_name(f".{MADE_NAME}.{secrets.token_hex(8)}")
    _write_private(note, _digest(_read(path)[0]).hex())
    os.rename(note, path.with_name(MADE_NAME))


def _write_draft(path: Path) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write_private(draft, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n")
    return draft


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # The mode is set again since the process's umask may have taken from it.
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> tuple[str, _Signature]:
    """The token and the signature of exactly the file it was read from."""
    try:
        # Not blocking: a FIFO put in the token's place must not hold the server up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "start the server once, or run: mhnos-runtime token --rotate"
        if isinstance(error, PermissionError):
            hint = f"it has to belong to the runtime's user: chown {os.geteuid()} {path}"
        raise ConfigError(f"token file {path} cannot be read: {error.strerror}", hint=hint) from None
    try:
        status = os.fstat(descriptor)
        _check_file(path, status)
        text = os.read(descriptor, MAX_TOKEN_CHARS + 2).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    if not _TOKEN.match(text):
        raise ConfigError(
            f"token file {path} is damaged: expected 32 to {MAX_TOKEN_CHARS} of A-Z a-z 0-9 . _ ~ -",
            hint="run: mhnos-runtime token --rotate",
        )
    return text, _signature(status)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"token file {path} is not a file", hint="move it away")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(
            f"token file {path} can be read by others (mode {mode:04o})", hint=f"chmod 600 {path}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"token file {path} belongs to another user", hint="move it away")


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size, status.st_dev


class TokenStore:
    """Says whether a text is the token. Follows the file: a rotated one is in force with the next check.

    Keeps only the token's SHA-256. While the file is missing or not fit to be trusted nothing matches, and
    `problem` says why. A check costs one stat and one hash, some microseconds: it may run on an event loop.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._now_ns = now_ns
        self._digest: bytes | None = None
        self._signature: _Signature | None = None
        self.problem = ""

    def matches(self, candidate: str) -> bool:
        self._follow()
        if self._digest is None or len(candidate) > MAX_TOKEN_CHARS:
            return False
        return hmac.compare_digest(_digest(candidate), self._digest)

    def _follow(self) -> None:
        try:
            if self._signature is not None and _signature(os.stat(self._path)) == self._signature:
                return
        except OSError:
            pass
        self._load()

    def _load(self) -> None:
        try:
            token, signature = _read(self._path)
        except (ConfigError, OSError) as error:
            self._digest, self._signature, self.problem = None, None, str(error)
            return
        young = self._now_ns() - signature[1] < _YOUNG_NS
        self._digest, self._signature, self.problem = _digest(token), None if young else signature, ""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
