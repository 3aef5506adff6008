"""A trash and its workspace, for pages of tests."""

from __future__ import annotations

import os
from pathlib import Path

from mhnos_runtime.files import tree
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import ANYTHING
from mhnos_runtime.files.entries import Entry
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.files.trash import Item, Trash
from tests.files.driving import drive


class Bin:
    """A trash and its workspace."""

    def __init__(self, workspace: Workspace, folder: Path, root: Path, keep_seconds: float = 3600.0) -> None:
        self.workspace, self.folder, self.root = workspace, folder, root
        self.told: list[str] = []
        self.trash = Trash(folder, keep_seconds, tell=self.told.append)

    @property
    def is_near(self) -> bool:
        return os.stat(self.folder.parent).st_dev == os.stat(self.root).st_dev

    def again(self, keep_seconds: float = 3600.0) -> Bin:
        """As after a restart."""
        return Bin(self.workspace, self.folder, self.root, keep_seconds)

    def remove(self, path: str) -> str:
        item = drive(self.removing(path))
        assert item is not None
        return item

    def removing(self, path: str) -> Steps[str | None]:
        return tree.remove(self.workspace, self.trash, path, recursive=True, condition=ANYTHING)

    def restore(self, item: str, to: str | None = None) -> Entry:
        return drive(self.trash.restore(self.workspace, item, to))

    def items(self, limit: int = 1000, workspace: Workspace | None = None) -> list[Item]:
        """All pages."""
        found: list[Item] = []
        before = None
        while True:
            page, more = drive(self.trash.page(before, limit, (workspace or self.workspace).covers))
            found += page
            if not more:
                return found
            before = page[-1].id

    def empty(self, items: list[str] | None = None) -> int:
        return drive(self.trash.empty(items, self.workspace.covers))

    def sweep(self) -> None:
        drive(self.trash.sweep(self.workspace))


def tree_of(root: Path, name: str = "t") -> None:
    (root / name / "d").mkdir(parents=True)
    (root / name / "d/file").write_text(name)
    (root / name / "link").symlink_to("d/file")
    os.mkdir(os.fsencode(root / name) + b"/\xff")
    (root / name / "d/file").chmod(0o4751)
    os.utime(root / name / "d", ns=(5, 5))


WHOLE = ["t", "t/d", "t/d/file", "t/link", "t/\udcff"]
