"""Folders for the temporary files of processes: made for one process, removed after it with all in it.

Knows files only. What processes leave there is hostile: no link is followed, and no turn of the loop, no
memory and no number of descriptors grows with how much it is, or how deep.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mhnos_runtime.supervisor.loop import Loop

#: Where the runtime makes its own folder. Paths stay short: that of a Unix socket has 107 bytes (unix(7)).
PLACE = "/tmp"  # noqa: S108 - the folder has a random name and is made with mkdir
PREFIX = "mhnos-tmp-"
#: How long one turn of removing takes, and the pause behind it: a tenth of a CPU at most.
TURN_SECONDS = 0.0005
PAUSE_SECONDS = 0.005
#: How long the end of the runtime may wait for what is still to be removed. The next runtime removes the rest.
END_SECONDS = 2.0
#: How many names in PLACE are looked at for what earlier runtimes left.
_MOST_NAMES = 10_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Of what is to be removed; only the runtime can enter it.
_GONE = "gone"


class TemporaryFolders:
    """One folder of the runtime, in which each process has one, of mode 0700, by its pid.

    The runtime's is locked (flock(2)) for as long as the runtime lives: so other runtimes see that it is in
    use, and systemd-tmpfiles passes over it (tmpfiles.d(5)).
    """

    def __init__(self, loop: Loop, place: str = PLACE) -> None:
        self._loop = loop
        self.place = place
        self._path = ""
        self._fd = -1
        self._number = 0
        self._removing: Iterator[None] | None = None

    def make(self, pid: int, user: tuple[int, int] | None) -> str:
        """The path of a new folder for this process. Raises OSError."""
        name = f"p{pid}"
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):  # somebody has emptied PLACE
                return self._make(name, user)
        self._begin()
        return self._make(name, user)

    def remove(self, pid: int) -> None:
        """Remove the folder of this process, if it has one: at once if it is empty, else little by little."""
        if self._fd < 0:
            return
        name = f"p{pid}"
        try:
            os.rmdir(name, dir_fd=self._fd)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                self._throw_away(name, self._fd)

    def state(self) -> tuple[dict[str, Any], list[int]]:
        """What `restore` needs, as JSON, and descriptors that must stay open until then."""
        row = {"path": self._path, "fd": self._fd, "number": self._number}
        return row, [] if self._fd < 0 else [self._fd]

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on with the folder of the supervisor that this one replaces."""
        if state is None:
            return
        self._path, self._fd, self._number = state["path"], state["fd"], state["number"]
        if self._fd >= 0:
            os.set_inheritable(self._fd, False)
            self._go_on()

    def close(self) -> None:
        """Remove the runtime's folder, as far as that is possible in END_SECONDS. All processes have ended."""
        if self._fd < 0:
            return
        self._removing = None
        ends = time.monotonic() + END_SECONDS
        for _ in self._remove_all():
            if time.monotonic() >= ends:
                break
        for folder in (f"{self._path}/{_GONE}", self._path):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        self._give_up()

    def _make(self, name: str, user: tuple[int, int] | None) -> str:
        os.mkdir(name, 0o700, dir_fd=self._fd)
        if user is not None:
            os.chown(name, *user, dir_fd=self._fd, follow_symlinks=False)
        return f"{self._path}/{name}"

    def _begin(self) -> None:
        """Make and lock the runtime's folder, and take over what runtimes left there that are gone."""
        self._give_up()
        while not self._lock_new(f"{self.place}/{PREFIX}{secrets.token_hex(6)}"):
            pass
        os.mkdir(_GONE, 0o700, dir_fd=self._fd)
        os.fchmod(self._fd, 0o711)
        with os.scandir(self.place) as entries:
            for name in [each.name for each in islice(entries, _MOST_NAMES) if each.name.startswith(PREFIX)]:
                self._take_over(name)

    def _lock_new(self, path: str) -> bool:
        """Whether it was made and locked before another runtime took it for one that is left."""
        os.mkdir(path, 0o700)
        fd = os.open(path, _FOLDER)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.path.samestat(os.stat(path), os.fstat(fd))
        except (BlockingIOError, FileNotFoundError):
            locked = False
        if not locked:
            os.close(fd)
            return False
        self._fd, self._path = fd, path
        return True

    def _give_up(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._path = -1, ""

    def _take_over(self, name: str) -> None:
        """Remove the folder of a runtime that is gone. Somebody else's stays, and one that is in use."""
        place = fd = -1
        try:
            place = os.open(self.place, _FOLDER)
            fd = os.open(name, _FOLDER, dir_fd=place)
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._throw_away(name, place)
        except OSError:
            return
        finally:
            for each in (fd, place):
                if each >= 0:
                    os.close(each)

    def _throw_away(self, name: str, folder: int) -> None:
        self._move_away(name, folder)
        self._go_on()

    def _move_away(self, name: str, folder: int) -> None:
        self._number += 1
        with contextlib.suppress(OSError):
            os.rename(name, f"{_GONE}/{self._number}", src_dir_fd=folder, dst_dir_fd=self._fd)

    def _go_on(self) -> None:
        if self._removing is None:
            self._removing = self._remove_all()
            self._loop.after(0, self._turn)

    def _turn(self) -> None:
        if self._removing is None:
            return
        ends = time.monotonic() + TURN_SECONDS
        for _ in self._removing:
            if time.monotonic() >= ends:
                self._loop.after(PAUSE_SECONDS, self._turn)
                return
        self._removing = None

    def _remove_all(self) -> Iterator[None]:
        """Remove what was thrown away, a step at a time.

        A folder that is not empty is moved up first, beside the one that it is found in, so that at any
        depth two are open at most.
        """
        while (name := self._next_gone()) is not None:
            yield
            try:
                yield from self._empty(name)
                os.rmdir(name, dir_fd=self._fd)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) or not self._keep(name):
                    return  # what is thrown away next starts this again

    def _keep(self, name: str) -> bool:
        """Put what cannot be removed out of the way of the rest; the next runtime tries again."""
        self._number += 1
        with contextlib.suppress(OSError):
            os.rename(name, f"kept-{self._number}", src_dir_fd=self._fd, dst_dir_fd=self._fd)
            return True
        return False

    def _next_gone(self) -> str | None:
        with contextlib.suppress(OSError):
            gone = os.open(_GONE, _FOLDER, dir_fd=self._fd)
            try:
                with os.scandir(gone) as entries:
                    return next((f"{_GONE}/{each.name}" for each in entries), None)
            finally:
                os.close(gone)
        return None

    def _empty(self, name: str) -> Iterator[None]:
        """Remove or move up all that is in a folder. Entries that the kernel has not told of when others go
        are found in the next pass. Raises OSError when it cannot be opened."""
        fd = _open_folder(name, self._fd)
        try:
            some = True
            while some:
                some = False
                with os.scandir(fd) as entries:
                    for entry in entries:
                        some = self._remove_one(entry.name, fd) or some
                        yield
        finally:
            os.close(fd)

    def _remove_one(self, name: str, folder: int) -> bool:
        """Whether it is no longer there. Links are removed, not followed (unlink(2))."""
        try:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                os.unlink(name, dir_fd=folder)
                return True
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError:
                os.close(_open_folder(name, folder))
                self._number += 1
                os.rename(name, f"{_GONE}/{self._number}", src_dir_fd=folder, dst_dir_fd=self._fd)
        except OSError:
            return False
        return True


def _open_folder(name: str, folder: int) -> int:
    """A descriptor of a folder, whatever its mode was; no link is followed. Raises OSError."""
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        # By the descriptor, not by the name again (proc(5)).
        os.chmod(f"/proc/self/fd/{path}", 0o700)
        return os.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(path)
