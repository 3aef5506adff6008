"""What a kind's hooks see of a start, in a workspace of the test's own."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from mhnos_runtime.errors import MhnosError, NotFound


@dataclass
class Context:
    """A workspace that is a dictionary. programs: those that the process sees; what is raised for another."""

    files: dict[str, str] = field(default_factory=lambda: {"/app/hello.js": "", "/app/lib.txt": ""})
    home: str = "/home/ws"
    cwd: str = "/app"
    path: str = "/usr/bin:/bin"
    network: str = "host"
    dry: bool = False
    handed: list[str] = field(default_factory=list)
    programs: tuple[str, ...] = ()
    no_program: MhnosError = field(default_factory=lambda: NotFound("no such program"))
    looked_for: list[str] = field(default_factory=list)

    def real(self, path: str, base: str | None = None) -> str:
        found = posixpath.normpath(posixpath.join(self.cwd if base is None else base, path))
        inside = found.rstrip("/") + "/"
        if found not in self.files and not any(name.startswith(inside) for name in self.files):
            raise NotFound(found)
        return found

    def has(self, path: str) -> bool:
        return posixpath.join(self.cwd, path) in self.files

    def program(self, path: str) -> None:
        self.looked_for.append(path)
        if path not in self.programs:
            raise self.no_program

    def normalise(self, path: str) -> str:
        return posixpath.join(self.cwd, path)

    def write_new(self, path: str, text: str) -> bool:
        return self.files.setdefault(path, text) is text

    def hand(self, text: str) -> int:
        self.handed.append(text)
        return 99 + len(self.handed)
