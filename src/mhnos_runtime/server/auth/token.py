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
from contextlib import suppress
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
        sync_folder(path.parent)
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
    sync_folder(path.parent)
    return read_token(state_dir)


def read_token(state_dir: Path) -> str:
    """The token. Raises ConfigError, with a hint, when the file is missing, readable by others or damaged."""
    return read_file(token_path(state_dir))[0]


def is_made_here(state_dir: Path) -> bool:
    """Whether the token in force is one that the runtime made. Raises ConfigError as `read_token` does."""
    token = read_token(state_dir)
    try:
        noted = (state_dir / MADE_NAME).read_bytes()
    except OSError:
        return False
    return hmac.compare_digest(noted, digest_of(token).hex().encode())


def _note_made(path: Path) -> None:
    """Without the note, as after a crash in between, a token only counts as the operator's."""
    note = path.with_name(f".{MADE_NAME}.{secrets.token_hex(8)}")
    _write_private(note, digest_of(read_file(path)[0]).hex())
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


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path) -> tuple[str, os.stat_result]:
    """The token and the status of exactly the file it was read from. Raises ConfigError; Unfit where that
    says nothing of what stands in the file."""
    try:
        # Not blocking: a FIFO put in the token's place must not hold the server up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise _closed(path, error) from None
    except OSError as error:
        hint = "start the server once, or run: mhnos-runtime token --rotate"
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
    return text, status


class Unfit(ConfigError):
    """The file is not fit to be read now. file: (device, inode), None where that cannot be seen. exposed:
    whether others may have read or changed it."""

    def __init__(self, message: str, *, hint: str, file: tuple[int, int] | None, exposed: bool) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.exposed = exposed


def _closed(path: Path, error: PermissionError) -> Unfit:
    """What keeps the runtime's user from reading it: the file's mode, its owner, or a folder's."""
    file, hint = None, f"chmod 700 {path.parent}"
    with suppress(OSError):
        status = os.stat(path)
        file = (status.st_dev, status.st_ino)
        ours = status.st_uid == os.geteuid()
        hint = (
            f"chmod 600 {path}"
            if ours
            else f"it has to belong to the runtime's user: chown {os.geteuid()} {path}"
        )
    return Unfit(f"token file {path} cannot be read: {error.strerror}", hint=hint, file=file, exposed=False)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"token file {path} is not a file", hint="move it away")
    file, rotate = (status.st_dev, status.st_ino), "mhnos-runtime token --rotate makes a new one"
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise Unfit(
            f"token file {path} can be read by others (mode {mode:04o})",
            hint=f"others may know this token: {rotate}; chmod 600 {path} keeps this one",
            file=file,
            exposed=True,
        )
    if status.st_uid not in (os.geteuid(), 0):
        hint = f"move it away: {rotate}"
        raise Unfit(f"token file {path} belongs to another user", hint=hint, file=file, exposed=True)


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
