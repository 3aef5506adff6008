"""A workspace for a grant of some folders: what is in them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhnos_runtime.errors import InvalidRequest, NotFound, Refused
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.trash import Trash
from tests.files.driving import paths
from tests.files.filing import Files, code


class TestLimited:
    """For a grant that is limited to folders."""

    @pytest.fixture
    def files(self, workspace: Workspace, trash: Trash, root: Path) -> Files:
        for name in ("a/in", "b/in", "a b"):
            (root / name).mkdir(parents=True)
        (root / "b/secret").write_text("secret")
        return Files(workspace.limited(["/a"]), trash)

    @pytest.mark.parametrize("path", ["/", "/b", "/b/secret", "/a/../b", "/ab", "/a b", "b/in"])
    def test_it_sees_and_changes_nothing_else(self, files: Files, root: Path, path: str) -> None:
        before = paths(root)
        for of_one in (files.list, files.look, files.make, files.remove):
            assert code(of_one, path) == "forbidden"
        for of_two in (files.move, files.copy):
            assert code(of_two, path, "/a/x") == "forbidden"
            assert code(of_two, "/a/in", path) == "forbidden"
        assert paths(root) == before

    def test_no_link_leads_it_out(self, files: Files, root: Path) -> None:
        (root / "a/l").symlink_to("../b")
        (root / "a/m").symlink_to("/b")
        for name in ("l", "m"):
            for act in (files.list, files.look):
                assert code(act, f"/a/{name}") == "outside-workspace"
            assert code(files.look, f"/a/{name}/secret") == "outside-workspace"
            assert code(files.copy, f"/a/{name}/secret", "/a/x") == "outside-workspace"
            assert code(files.move, f"/a/{name}/secret", "/a/x") == "outside-workspace"
            assert code(files.remove, f"/a/{name}/secret") == "outside-workspace"
            assert code(files.copy, "/a/in", f"/a/{name}/x") == "outside-workspace"
            assert files.look(f"/a/{name}", follow=False)[0].kind == "link"

    def test_its_folder_is_no_link_either(self, files: Files, root: Path) -> None:
        (root / "a/in").rmdir()
        (root / "a").rmdir()
        (root / "a").symlink_to("b")
        for act in (files.list, files.look):
            with pytest.raises((InvalidRequest, NotFound, Refused)):
                act("/a")
        with pytest.raises((InvalidRequest, NotFound, Refused)):
            files.look("/a/secret")

    def test_its_folder_itself_stays(self, files: Files) -> None:
        assert code(files.remove, "/a", recursive=True) == "invalid-argument"
        assert code(files.move, "/a", "/a/x") == "invalid-argument"

    def test_the_rest_is_as_for_all(self, files: Files, root: Path) -> None:
        assert files.make("/workspace/a/new/deep", parents=True).path == "/a/new/deep"
        assert files.names("/a") == ["in", "new"]
        files.move("/a/new", "/a/newer")
        assert (root / "a/newer/deep").is_dir()


def test_directories_limited_to_folders_that_meet_are_the_deepest(workspace: Workspace, root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    limited = workspace.limited(["/a", "/a/b"])
    assert limited.covers("/a/b/c")
    assert limited.covers("/a")
    assert not limited.covers("/ab")
    assert workspace.covers("/anything")
