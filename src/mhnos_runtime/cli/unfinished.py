"""What an interrupted copy left, so that the same command goes on there: ids of uploads in the cache
directory, parts of downloads beside their targets. Knows names and ages; moves no content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time

PART_PREFIX = ".mhnos-pull-"
_KEPT_S = 7 * 24 * 3600.0  # a server forgets an unfinished upload earlier
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")


def key(*parts: object) -> str:
    """A file name for what these say: another file, or another state of it, has another one."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).hexdigest()[:32]


class UploadNote:
    """Remembers the id of one upload until it is done. Where it cannot be kept, it is not resumed."""

    def __init__(self, url: str, path: str, source: str, status: os.stat_result) -> None:
        self._folder = os.path.join(_cache_dir(), "uploads")
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        self._path = os.path.join(self._folder, key(url, path, os.path.abspath(source), *state))

    def read(self) -> str | None:
        """The id; None: there was no such upload."""
        try:
            with open(self._path, encoding="ascii") as file:
                text = file.read(256).strip()
        except (OSError, ValueError):
            return None
        return text if _ID.match(text) else None

    def keep(self, upload: str) -> None:
        """Remember it, and forget those of last week."""
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            _forget_old(self._folder)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "w", encoding="ascii") as file:
                file.write(upload)

    def drop(self) -> None:
        """It is done, or gone."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def part_path(url: str, path: str, version: str, target: str) -> str:
    """Where a download waits to be whole: beside its target, one name for each version of the file, whatever
    the server calls that."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f"{PART_PREFIX}{key(url, path, name)[:16]}-{key(version)[:16]}")


def drop_other_parts(part: str) -> None:
    """Remove what is left of other versions of the same download."""
    folder, name = os.path.split(part)
    begin = name.rpartition("-")[0] + "-"
    with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in entries:
            if entry.name.startswith(begin) and entry.name != name:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _cache_dir() -> str:
    """XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(os.environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(base, "mhnos-runtime")


def _forget_old(folder: str) -> None:
    before = time.time() - _KEPT_S
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime < before:
                os.unlink(entry.path)
