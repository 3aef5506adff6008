"""The workspace as a kind's hooks see it at the start of one process. Knows files; not what they mean."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field

from mhnos_runtime.errors import InvalidRequest, MhnosError, NotFound
from mhnos_runtime.files import push_pull
from mhnos_runtime.files.confine import StepBudget, Workspace
from mhnos_runtime.server.processes.ports import Handed
from mhnos_runtime.server.processes.programs import Programs


@dataclass(frozen=True, slots=True)
class WorkspaceContext:
    """A `process.kind.StartContext` of the real workspace. handed: takes what is handed over."""

    workspace: Workspace
    programs: Programs
    cwd: str
    path: str
    network: str
    handed: Handed
    dry: bool = False
    _steps: StepBudget = field(default_factory=StepBudget)
    _looks: StepBudget = field(default_factory=StepBudget)

    @property
    def home(self) -> str:
        return self.programs.home

    def real(self, path: str, base: str | None = None) -> str:
        host = self.workspace.real_path(path, self.cwd if base is None else base, self._steps)
        return host.removeprefix(os.path.realpath(self.workspace.root))

    def has(self, path: str) -> bool:
        try:
            with self.workspace.resolve(path, self.cwd, steps=self._looks) as found:
                return found.fd >= 0
        except (NotFound, InvalidRequest):
            return False

    def program(self, path: str) -> None:
        self.programs.check(path)

    def normalise(self, path: str) -> str:
        return self.workspace.normalise(path, self.cwd)

    def write_new(self, path: str, text: str) -> bool:
        if self.dry:
            return True
        try:
            self.workspace.real_path(path)
        except NotFound:
            done = push_pull.push(self.workspace, [push_pull.PushEntry(path, "file", [text.encode()], None)])
            if done.errors:
                raise MhnosError(done.errors[0][1], code="start-failed") from None
            return True
        return False

    def hand(self, text: str) -> int:
        return self.handed.add(_in_memory(text))


def _in_memory(text: str) -> int:
    """A file that nobody can change any more: the supervisor takes only those for a program."""
    fd = os.memfd_create("config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    except BaseException:
        os.close(fd)
        raise
    return fd
