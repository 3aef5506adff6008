"""What a kind's hooks see of a start, in a workspace of the test's own."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from mhnos_runtime.errors import NotFound


@dataclass
class Context:
    """A workspace that is a dictionary."""

    files: dict[str, str] = field(default_factory=lambda: {"/app/hello.js": "", "/app/lib.txt": ""})
    home: str = "/home/ws"
    cwd: str = "/app"
    network: str = "host"
    dry: bool = False
    handed: list[str] = field(default_factory=list)

    def real(self, path: str, base: str | None = None) -> str:
        found = posixpath.join(self.cwd if base is None else base, path)
        if found not in self.files:
            raise NotFound(found)
        return found

    def normalise(self, path: str) -> str:
        return posixpath.join(self.cwd, path)

    def write_new(self, path: str, text: str) -> bool:
        return self.files.setdefault(path, text) is text

    def hand(self, text: str) -> int:
        self.handed.append(text)
        return 99 + len(self.handed)
