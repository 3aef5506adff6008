"""The functions of tree.py on one workspace, driven to their end, for many pages of tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files import tree
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.copying import Copied
from mhnos_runtime.files.draft import ANYTHING, Condition
from mhnos_runtime.files.entries import Entry
from mhnos_runtime.files.trash import Trash
from mhnos_runtime.files.tree import Moved
from tests.files.driving import drive


class Files:
    """The functions of tree.py on one workspace, driven to their end."""

    def __init__(self, workspace: Workspace, trash: Trash) -> None:
        self.workspace, self.trash = workspace, trash

    def names(self, path: str = "/", limit: int = 5000) -> list[str]:
        return [Path(entry.path).name for entry in self.list(path, limit)]

    def list(self, path: str = "/", limit: int = 5000) -> list[Entry]:
        """All pages."""
        found: list[Entry] = []
        after = None
        while True:
            page = drive(tree.list_page(self.workspace, path, after, limit))
            assert len(page.entries) <= limit
            found += page.entries
            after = page.after
            if after is None:
                return found

    def look(self, path: str, **how: bool) -> tuple[Entry, str | None]:
        return drive(tree.look(self.workspace, path, **how))

    def make(self, path: str, **how: bool) -> Entry:
        return drive(tree.make_directory(self.workspace, path, **how))

    def move(self, source: str, target: str, condition: Condition = ANYTHING, **how: bool) -> Moved:
        return drive(tree.move(self.workspace, self.trash, source, target, condition=condition, **how))

    def copy(self, source: str, target: str, **how: bool) -> tuple[Moved, Copied]:
        return drive(tree.copy(self.workspace, self.trash, source, target, **how))

    def remove(self, path: str, condition: Condition = ANYTHING, **how: bool) -> str | None:
        return drive(tree.remove(self.workspace, self.trash, path, condition=condition, **how))

    def restore(self, item: str | None, to: str | None = None) -> Entry:
        assert item is not None
        return drive(self.trash.restore(self.workspace, item, to))


def code(act: Callable[..., Any], *args: Any, **how: Any) -> str:
    with pytest.raises(MhnosError) as caught:
        act(*args, **how)
    assert "/tmp" not in caught.value.message
    return caught.value.code


def tree_of(root: Path, name: str = "t") -> None:
    (root / name / "d").mkdir(parents=True)
    (root / name / "d/file").write_text(name)
    (root / name / "link").symlink_to("d/file")
