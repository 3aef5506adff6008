"""Programs as a process sees them: in the workspace, and in what its sandbox shows of the machine.

Starts none: whether one may be executed is the kernel's to say, in the sandbox.
"""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import stat
from contextlib import suppress

from mhnos_runtime.errors import MhnosError, NotFound, StartFailed
from mhnos_runtime.files.confine import StepBudget, Workspace, by_fd
from mhnos_runtime.files.paths import shown
from mhnos_runtime.sandbox import Sandbox, places, visible
from mhnos_runtime.sandbox.probe import reachable

#: As the kernel's (path_resolution(7)).
_MAX_LINKS = 40
#: What a path in the workspace begins with, for `Workspace`: a folder there may have this name as well.
_TOP = "/workspace"
#: How much of a script the kernel reads for its interpreter (BINPRM_BUF_SIZE of linux/binfmts.h).
_FIRST_LINE_BYTES = 256


class Programs:
    """workspace: of the clients, by which every path in it is looked at. home: it as processes see it."""

    def __init__(self, workspace: Workspace, sandbox: Sandbox) -> None:
        self._workspace = workspace
        self._sandbox = sandbox
        self._places = places(sandbox)
        self.home = self._places[0]

    def find(self, name: str, path: str, cwd: str = "/") -> str | None:
        """The first program of this name on a PATH of a process in `cwd`, a path in the workspace; as the
        process sees it. All folders together take no more steps than one path may."""
        steps = StepBudget()
        for folder in path.split(":"):
            found = self._in_folder(name, posixpath.join(self.home + cwd, folder), steps)
            if found:
                return found
        return None

    def _in_folder(self, name: str, folder: str, steps: StepBudget) -> str:
        path = posixpath.normpath(posixpath.join(folder, name))
        # Most folders of a PATH are the machine's, and do not have it.
        if self._inside(path) is None and shutil.which(name, path=folder) is None:
            return ""
        with suppress(MhnosError):
            self._real(path, steps)
            return path
        return ""

    def check(self, path: str) -> None:
        """Look whether a process sees a program and, of a script, its interpreter. path: the process's.

        Raises NotFound, StartFailed (not-found: outside of what it sees; not-executable), and Refused for a
        folder that leads outside the workspace."""
        steps = StepBudget()
        real = self._real(path, steps)
        inside = self._inside(real)
        interpreter = "" if inside is None else self._interpreter(inside)
        if interpreter:
            self._real(interpreter, steps)

    def _real(self, path: str, steps: StepBudget) -> str:
        """Where a program really is, links resolved. Both paths are the process's."""
        seen = posixpath.normpath(path)
        for _ in range(_MAX_LINKS):
            inside = self._inside(seen)
            if inside is None:
                self._check_machines(seen, path)
                return seen
            target = self._step(inside, steps)
            if target is None:
                return seen
            seen = posixpath.normpath(target)
        raise NotFound(f"{os.strerror(errno.ELOOP)}: {shown(path)}")

    def _inside(self, seen: str) -> str | None:
        """A path of the process as one in the workspace, or None."""
        for place in self._places:
            if seen == place or seen.startswith(place.rstrip("/") + "/"):
                return _TOP + seen.removeprefix(place)
        return None

    def _step(self, path: str, steps: StepBudget) -> str | None:
        """Where the link at a path in the workspace leads, as the process sees it; None for a program."""
        folder, name = posixpath.split(path)
        # The folder may be behind links; the last name may lead out, and is looked at by itself.
        top = os.path.realpath(self._workspace.root)
        real = _TOP + self._workspace.real_path(folder, steps=steps).removeprefix(top)
        with self._workspace.resolve(f"{real}/{name}", follow=False, steps=steps) as found:
            if found.fd < 0:
                raise FileNotFoundError(errno.ENOENT, "")
            if stat.S_ISLNK(found.mode):
                target = os.readlink(b"", dir_fd=found.fd).decode(errors="surrogateescape")
                return posixpath.join(self.home + real.removeprefix(_TOP), target)
            if not stat.S_ISREG(found.mode):
                raise StartFailed(f"not a program: {shown(path)}", code="not-executable")
            if not os.access(by_fd(found.fd), os.X_OK):
                raise StartFailed(
                    f"{shown(path)}: not executable", code="not-executable", hint=f"chmod +x {shown(name)}"
                )
        return None

    def _interpreter(self, path: str) -> str:
        """What a script in the workspace names in its first line, or ""."""
        with open(self._workspace.open_file(path, os.O_RDONLY), "rb") as file:
            first = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
        words = first.removeprefix(b"#!").split()
        return words[0].decode(errors="surrogateescape") if first.startswith(b"#!") and words else ""

    def _closed(self, seen: str) -> str:
        """The folder on the way there that the user of processes cannot enter, or ""."""
        user = self._sandbox.policy.user
        try:
            return "" if user is None else reachable(seen, user)
        except OSError:
            return ""  # it is not there

    def _check_machines(self, seen: str, path: str) -> None:
        """What a process does not see is not looked at, and links that are hidden from it are not told: it
        could make this one look at links of the machine (/proc/1/cwd) in its place."""
        named = shown(path) if seen == path else f"{shown(path)} is {shown(seen)}"
        sees = visible(self._sandbox, seen)
        if sees and (closed := self._closed(seen)):
            raise StartFailed(
                f"{named}: the user of processes cannot enter {closed}",
                code="not-executable",
                hint="use one in the workspace or of the system",
            )
        real = os.path.realpath(seen) if sees else ""
        if not visible(self._sandbox, real):
            raise StartFailed(
                f"{named}: processes do not see it (sandbox {self._sandbox.policy.level})",
                code="not-found",
                hint="use one in the workspace or of the system",
            )
        if not os.access(real, os.X_OK):
            raise NotFound(f"{os.strerror(errno.ENOENT)}: {shown(seen)}")
