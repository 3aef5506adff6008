"""The user id of processes where root runs the runtime and names none: one that is not in use.

Knows the claims of this machine's runtimes, each a link named by the id that points to the workspace.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mhnos_runtime.config import ConfigError

CLAIMS = Path("/var/lib/mhnos-runtime/uids")


def free(candidates: Iterable[int], workspace: Path, claims: Path = CLAIMS) -> int:
    """The first candidate that is this workspace's or nobody's. Changes nothing. Raises ConfigError."""
    mine, kept = str(workspace.resolve()), list(candidates)
    taken = {uid: owner for uid in kept if (owner := _owner(claims / str(uid)))}
    own = [uid for uid in kept if taken.get(uid) == mine]
    found = own or [uid for uid in kept if uid not in taken]
    if found:
        return found[0]
    raise ConfigError(
        f"no user id is left for the processes of workspace {workspace}: other workspaces have all of them",
        hint=f"name one with --user; {claims} says which workspace has which",
    )


def claim(candidates: Iterable[int], workspace: Path, claims: Path = CLAIMS) -> int:
    """As `free`, and have it for this workspace from now on. Raises ConfigError."""
    try:
        claims.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(claims):
            uid = free(candidates, workspace, claims)
            link = claims / str(uid)
            if not _owner(link):
                link.unlink(missing_ok=True)
                link.symlink_to(workspace.resolve())
    except OSError as error:
        raise ConfigError(
            f"no user id can be claimed in {claims}: {error.strerror}", hint="name one with --user"
        ) from None
    return uid


def _owner(link: Path) -> str:
    """The workspace that has it; "" for none, and for one that is gone."""
    try:
        target = os.readlink(link)
    except OSError:
        return ""
    return target if os.path.isdir(target) else ""


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
