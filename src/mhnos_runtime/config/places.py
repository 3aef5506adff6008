"""Makes and checks the folders that settings name: the workspace and the state directory.

Knows what each must be, not what is put there.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from pathlib import Path

from mhnos_runtime.config.table import Settings
from mhnos_runtime.errors import ConfigError


def prepare_workspace(settings: Settings) -> Path:
    """The workspace; the default one is made if it is missing. Raises ConfigError with a hint."""
    source = settings.source("workspace")
    return check_workspace(settings.workspace, create=source == "default", source=source)


def check_workspace(path: Path, *, create: bool = False, source: str = "") -> Path:
    """A folder that this user can list and write. Raises ConfigError that says what is wrong and what to
    do."""
    what = f"workspace {path}" + (f" (by {source})" if source else "")
    quoted = shlex.quote(str(path))
    _make_folder(path, what, 0o755, create)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigError(f"{what} is not writable", hint=_how_to_write(path, quoted))
    return path


def _how_to_write(path: Path, quoted: str) -> str:
    owner = path.stat().st_uid
    if owner == os.geteuid():
        return f"make it writable (chmod u+rwx {quoted}, or mount it read-write), or choose another folder"
    return f"it belongs to {_name_of(owner)}: choose a folder of your own, or start the runtime as that user"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def ensure_state_dir(path: Path) -> Path:
    """The state directory, made with mode 0700 if it is missing. Raises ConfigError.

    An existing one keeps its mode, since it may be shared on purpose. One in which others can write is
    refused: they could put a token there.
    """
    what = f"state_dir {path}"
    quoted = shlex.quote(str(path))
    _make_folder(path, what, 0o700, create=True)
    status = path.stat()
    if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
        hint = f"chmod 700 {quoted}, or choose a folder of your own"
        raise ConfigError(f"{what} can be written by other users", hint=hint)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigError(f"{what} is not writable", hint=f"chmod 700 {quoted}, or choose another folder")
    return path


def _make_folder(path: Path, what: str, mode: int, create: bool) -> None:
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=mode, exist_ok=True)
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{what} does not exist", hint=f"mkdir -p {shlex.quote(str(path))}") from error
    except FileExistsError:
        is_folder = False
    except OSError as error:
        raise ConfigError(f"{what} cannot be used: {error.strerror}", hint="choose another folder") from None
    if not is_folder:
        raise ConfigError(f"{what} is not a folder", hint="move the file away, or choose another folder")
