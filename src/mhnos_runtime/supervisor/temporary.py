"""Folders for temporary files: made for one process, removed after it with everything in it.

Knows files only. The contents are hostile: no link is followed, and neither memory nor the number of
descriptors grows with their size or depth. Removing blocks, so a child does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import stat
import time
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from mhnos_runtime import title
from mhnos_runtime.supervisor.confine import prctl
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.signals import reset_signals

#: Where the runtime makes its own folder. Paths must be short: that of a Unix socket has 107 bytes (unix(7)).
PLACE = "/tmp"  # noqa: S108 - the folder has a random name and is made with mkdir
PREFIX = "mhnos-tmp-"
#: From the first removed folder to the fork of the child that deletes it: many ended processes share one
#: fork, which takes some 2 ms and would slow a start.
REMOVE_SECONDS = 5.0
#: How long the end of the runtime may wait for removals. The next runtime removes the rest.
END_SECONDS = 2.0
#: How many names in PLACE are checked for folders of earlier runtimes.
_MOST_NAMES = 10_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: The folder of things to be removed; only the runtime can enter it.
_GONE = "gone"
_PR_SET_PDEATHSIG = 1
_NICE = 19


@dataclass(frozen=True, slots=True)
class FoldersState:
    """For the next supervisor. fd: -1 if there is no folder."""

    path: str
    fd: int
    number: int
    os_pid: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        return () if self.fd < 0 else (self.fd,)


class TemporaryFolders:
    """The runtime's folder, with one folder for each process, of mode 0700, named by its pid.

    It is locked (flock(2)) as long as the runtime lives: other runtimes see that it is in use, and
    systemd-tmpfiles skips it (tmpfiles.d(5)). os_pid: of the child that removes, 0 if there is none.
    """

    def __init__(self, loop: Loop, place: str = PLACE) -> None:
        self._loop = loop
        self.place = place
        self._path = ""
        self._fd = -1
        self._number = 0
        self._some = self._due = False
        self.os_pid = 0

    def make(self, pid: int, user: tuple[int, int] | None) -> str:
        """The path of a new folder for this process. Raises OSError."""
        name = f"p{pid}"
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):  # somebody has emptied PLACE
                return self._make(name, user)
        self._begin()
        return self._make(name, user)

    def path(self, pid: int) -> str:
        """Of the folder of this process; "" if none has one."""
        return f"{self._path}/p{pid}" if self._fd >= 0 else ""

    def remove(self, pid: int) -> None:
        """Remove the folder of this process in the background, if it has one."""
        if self._fd >= 0 and self._throw_away(f"p{pid}", self._fd):
            self._remove_later()

    def reaped(self) -> None:
        """The child that removes has ended."""
        self.os_pid = 0
        if self._some:
            self._remove_later()

    def state(self) -> FoldersState:
        """What `restore` needs."""
        return FoldersState(self._path, self._fd, self._number, self.os_pid)

    def restore(self, state: FoldersState) -> None:
        """Go on with the folder of the supervisor that this one replaces."""
        self._path, self._fd, self._number, self.os_pid = state.path, state.fd, state.number, state.os_pid
        if self._fd >= 0:
            os.set_inheritable(self._fd, False)
            self._remove_later()

    def close(self) -> None:
        """Remove the runtime's folder, as far as END_SECONDS allow. All processes have ended."""
        if self._fd < 0:
            return
        ends = time.monotonic() + END_SECONDS
        while self._some_gone() and time.monotonic() < ends:
            if not self.os_pid and not self._fork():
                break
            self._wait(ends - time.monotonic())
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
        """Make and lock the runtime's folder, and take over folders of runtimes that are gone."""
        self._give_up()
        while not self._lock_new(f"{self.place}/{PREFIX}{os.urandom(6).hex()}"):
            pass
        try:
            os.mkdir(_GONE, 0o700, dir_fd=self._fd)
        except OSError:
            self._give_up()  # the next runtime takes it over
            raise
        os.fchmod(self._fd, 0o711)
        with os.scandir(self.place) as entries:
            for name in [each.name for each in islice(entries, _MOST_NAMES) if each.name.startswith(PREFIX)]:
                self._take_over(name)

    def _lock_new(self, path: str) -> bool:
        """Whether it was made and locked before another runtime took it for an abandoned one."""
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
        """Remove the folder of a runtime that is gone, unless it is another user's or in use."""
        place = fd = -1
        try:
            place = os.open(self.place, _FOLDER)
            fd = os.open(name, _FOLDER, dir_fd=place)
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._throw_away(name, place)
                self._remove_later()
        except OSError:
            return
        finally:
            for each in (fd, place):
                if each >= 0:
                    os.close(each)

    def _throw_away(self, name: str, folder: int) -> bool:
        self._number += 1
        with contextlib.suppress(OSError):
            os.rename(name, f"{_GONE}/{self._number}", src_dir_fd=folder, dst_dir_fd=self._fd)
            return True
        return False

    def _remove_later(self) -> None:
        self._some = True
        if not self._due and not self.os_pid:
            self._due = True
            self._loop.after(REMOVE_SECONDS, self._remove)

    def _remove(self) -> None:
        self._due = False
        if self._fd < 0 or self.os_pid:
            return
        self._some = not self._fork()
        if self._some:
            self._remove_later()

    def _fork(self) -> bool:
        try:
            self.os_pid = os.fork()
        except OSError:
            return False
        if self.os_pid == 0:
            _remove_all(self._fd)
        return True

    def _some_gone(self) -> bool:
        return _first(_GONE, self._fd) is not None

    def _wait(self, seconds: float) -> None:
        """Wait for the child that removes, and kill it when the time is over. It is not reaped here."""
        with contextlib.suppress(OSError), open(os.pidfd_open(self.os_pid), "rb", 0) as ended:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.poll(max(0, round(seconds * 1000)))
        os.kill(self.os_pid, signal.SIGKILL)
        os.waitpid(self.os_pid, 0)
        self.os_pid = 0


def _remove_all(parent: int) -> NoReturn:
    """The child: close everything but the runtime's folder, and remove what is in its folder `gone`."""
    try:
        reset_signals()
        os.setpgid(0, 0)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.nice(_NICE)
        title.take(title.REMOVING)
        os.closerange(0, parent)
        os.closerange(parent + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        remove_gone(parent)
    finally:
        os._exit(0)


def remove_gone(parent: int) -> None:
    """Remove everything in the folder `gone` of the folder that `parent` is a descriptor of.

    A folder that is not empty is moved up into `gone` before it is opened, so that at any depth only one is
    open. What cannot be removed is moved to `parent`, out of the way of the rest.
    """
    number = 0
    gone = os.open(_GONE, _FOLDER, dir_fd=parent)
    try:
        while (name := _first(_GONE, parent)) is not None:
            try:
                number = _empty(name, gone, number)
                os.rmdir(name, dir_fd=gone)
            except OSError:
                number += 1
                os.rename(name, f"kept-{os.getpid()}-{number}", src_dir_fd=gone, dst_dir_fd=parent)
    finally:
        os.close(gone)


def _first(name: str, folder: int) -> str | None:
    """The name of any entry of a folder; None if there is none, or it cannot be read."""
    with contextlib.suppress(OSError):
        fd = os.open(name, _FOLDER, dir_fd=folder)
        try:
            with os.scandir(fd) as entries:
                return next((each.name for each in entries), None)
        finally:
            os.close(fd)
    return None


def _empty(name: str, gone: int, number: int) -> int:
    """Remove everything in a folder, or move it up; return the number of the last one that was moved.

    Entries that the kernel skips while others are removed are found in the next pass. Raises OSError.
    """
    fd = _open_folder(name, gone)
    try:
        some = True
        while some:
            some = False
            with os.scandir(fd) as entries:
                for entry in entries:
                    number += 1
                    some = _remove_one(entry.name, fd, gone, f"{os.getpid()}-{number}") or some
    finally:
        os.close(fd)
    return number


def _remove_one(name: str, folder: int, gone: int, moved: str) -> bool:
    """Whether it is gone. Links are removed, not followed (unlink(2))."""
    try:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            return True
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError:
            # Moving a folder into another one needs the right to write in it (rename(2)).
            os.close(_open_folder(name, folder))
            os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=gone)
    except OSError:
        return False
    return True


def _open_folder(name: str, folder: int) -> int:
    """A descriptor of a folder, whatever its mode was. Links are not followed. Raises OSError."""
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        # By the descriptor, not by the name (proc(5)).
        os.chmod(f"/proc/self/fd/{path}", 0o700)
        return os.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(path)
