"""Which token is in force while its file changes, and what is wrong with the file.

Knows the file by `token`; knows nothing of requests, of logs, and of who remembers what is known.
"""

from __future__ import annotations

import hmac
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mhnos_runtime.config import ConfigError
from mhnos_runtime.server.auth.token import MAX_TOKEN_CHARS, Unfit, digest_of, read_file

# File times advance in ticks of up to 10 ms: a file that was younger than this when it was read may change
# again without its times showing it.
_YOUNG_NS = 50_000_000

_ROTATE = "others may know this token: mhnos-runtime token --rotate makes a new one"

_Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Known:
    """A token by its SHA-256 in hexadecimal digits, and the file that it was read from while that was fit.
    exposed: whether others may have read or changed the file since. refused: inode of what stood in its place
    while others could put it there."""

    digest: str
    device: int
    inode: int
    exposed: bool = False
    refused: int = 0

    @property
    def file(self) -> tuple[int, int]:
        return self.device, self.inode

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any] | None) -> Known | None:
        """None for nothing, and for what `to_dict` did not make: a server that was taken over must not be
        able to end each next one. The file then says all that is known."""
        try:
            known = cls(**(data or {}))
            bytes.fromhex(known.digest)
        except (TypeError, ValueError):
            return None
        numbers: tuple[object, ...] = (known.device, known.inode, known.refused)
        fit = all(type(each) is int for each in numbers) and type(known.exposed) is bool
        return known if fit else None


def learn(path: Path) -> Known:
    """What a fit file holds. Raises ConfigError."""
    token, status = read_file(path)
    return Known(digest_of(token).hex(), status.st_dev, status.st_ino)


class TokenStore:
    """Says whether a text is the token. Follows the file: a rotated one is in force with the next check.

    A file that is missing, damaged or replaced by one that is not fit lets nobody in. One whose mode or
    owner changed is not read, nor one that was damaged after others could write it, and neither is any while
    others can write the folder, or it is closed: what was known stays in force. Whoever can change modes must
    neither lock everybody out nor bring in a token of their own.

    known: what an earlier server knew. problem: what is wrong, "" if nothing; where others may know the token
    it stays until that is another one. A check costs one stat and one hash, some microseconds: it may run on
    an event loop.
    """

    def __init__(
        self, path: Path, known: Known | None = None, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._path = path
        self._now_ns = now_ns
        self._signature: _Signature | None = None
        self.known = known
        self.problem = ""

    def matches(self, candidate: str) -> bool:
        self.follow()
        if self.known is None or len(candidate) > MAX_TOKEN_CHARS:
            return False
        return hmac.compare_digest(digest_of(candidate).hex(), self.known.digest)

    @property
    def in_force(self) -> bool:
        """Whether there is a token that matches."""
        return self.known is not None

    def follow(self) -> None:
        """Look at the file, and read it where it has changed."""
        try:
            if self._signature is not None and _signature(os.stat(self._path)) == self._signature:
                return
        except OSError:
            pass
        self._signature = None
        if others := writable_by_others(self._path.parent):
            self._pass_over(others)
            return
        try:
            token, status = read_file(self._path)
        except Unfit as error:
            self._keep(error)
        except (ConfigError, OSError) as error:
            self.problem = str(error)
            if not self._was_open():
                self.known = None
        else:
            self._take(token, status)

    def _pass_over(self, others: str) -> None:
        self.problem = f"{others}; chmod 700 {self._path.parent}, then {_ROTATE}"
        with suppress(OSError):
            inode = os.stat(self._path).st_ino
            if self.known is not None and inode != self.known.inode:
                self.known = replace(self.known, refused=inode)

    def _keep(self, error: Unfit) -> None:
        self.problem = f"{error.message}; {error.hint}"
        known = self.known
        if known is None or error.file in (None, (known.device, known.refused)):
            return
        same = error.file == known.file
        self.known = replace(known, exposed=known.exposed or error.exposed) if same else None

    def _was_open(self) -> bool:
        """Whether others may have written what stands in the file: the same that was read, and open since."""
        known = self.known
        if known is None or not known.exposed:
            return False
        with suppress(OSError):
            status = os.stat(self._path)
            return (status.st_dev, status.st_ino) == known.file
        return False

    def _take(self, token: str, status: os.stat_result) -> None:
        found = Known(digest_of(token).hex(), status.st_dev, status.st_ino)
        self.problem = self._doubt(found)
        if self.problem:
            return
        self.known = found
        young = self._now_ns() - status.st_ctime_ns < _YOUNG_NS
        self._signature = None if young else _signature(status)

    def _doubt(self, found: Known) -> str:
        """Why what stands in a fit file is not put in force, or is in force and known to others."""
        known = self.known
        if known is None:
            return ""
        if found.inode == known.refused:
            put = "was put there while others could do that, and is not followed"
            return f"token file {self._path} {put}; {_ROTATE}"
        if not known.exposed or found.file != known.file:
            return ""
        changed = "" if found.digest == known.digest else ", and changed, which is not followed"
        return f"token file {self._path} was open to others{changed}; {_ROTATE}"


def writable_by_others(folder: Path) -> str:
    try:
        status = folder.stat()
    except OSError as error:
        return f"state_dir {folder} cannot be seen ({error.strerror})"
    if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
        return f"state_dir {folder} can be written by other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size, status.st_dev
