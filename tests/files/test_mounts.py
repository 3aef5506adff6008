"""Requests over the border of a file system that is mounted in the workspace, where root may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import InvalidRequest
from tests.files.driving import paths
from tests.files.filing import Files, code, tree_of


@pytest.fixture
def mounted(root: Path) -> Iterator[Path]:
    """Another file system in the workspace."""
    (root / "m").mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "none", root / "m"], check=False).returncode:
        pytest.skip("needs root that may mount")
    try:
        yield root / "m"
    finally:
        subprocess.run(["umount", root / "m"], check=True)


class TestAnotherFileSystem:
    def test_a_move_says_what_to_do(self, files: Files, root: Path, mounted: Path) -> None:
        tree_of(root)
        with pytest.raises(InvalidRequest) as caught:
            files.move("/t", "/m/t")
        assert (caught.value.code, "copy" in caught.value.hint) == ("other-file-system", True)
        (mounted / "t").touch()
        assert code(files.move, "/t", "/m/t", replace=True) == "other-file-system"
        assert paths(root) == ["m", "m/t", "t", "t/d", "t/d/file", "t/link"]

    def test_a_copy_works(self, files: Files, root: Path, mounted: Path) -> None:
        tree_of(root)
        files.copy("/t", "/m/t")
        assert paths(mounted / "t") == paths(root / "t")

    def test_the_trash_takes_and_gives_it(self, files: Files, root: Path, mounted: Path) -> None:
        tree_of(mounted)
        item = files.remove("/m/t", recursive=True)
        assert os.listdir(mounted) == []
        files.restore(item)
        assert paths(mounted) == ["t", "t/d", "t/d/file", "t/link"]

    def test_one_that_is_read_only(self, files: Files, root: Path, mounted: Path) -> None:
        tree_of(mounted)
        (root / "f").touch()
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        before = paths(root)
        assert code(files.remove, "/m/t", recursive=True) == "refused"
        assert code(files.remove, "/m/t", recursive=True, outright=True) == "refused"
        assert code(files.make, "/m/d") == "refused"
        assert code(files.copy, "/f", "/m/f") == "refused"
        assert code(files.copy, "/f", "/m/t", replace=True) == "refused"
        assert code(files.move, "/m/t/link", "/m/l") == "refused"
        assert paths(root) == before
        assert os.listdir(files.trash._path) == []
        assert files.copy("/m/t", "/t")[1].copied == 4

    def test_what_is_mounted_is_not_removed(self, files: Files, root: Path, mounted: Path) -> None:
        (mounted / "kept").touch()
        assert code(files.remove, "/m", recursive=True) == "unavailable"
        assert code(files.remove, "/m", recursive=True, outright=True) in ("refused", "unavailable")
