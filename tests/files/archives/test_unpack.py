"""What archives may do to a workspace: every trick of the path tests again, as members of archives.

The fixture `outside` checks that nothing outside was touched.
"""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import LimitReached, MhnosError
from mhnos_runtime.files.archives import unpack as unpacking
from mhnos_runtime.files.archives.entry import END, ArchiveEntry, End, Event
from mhnos_runtime.files.archives.unpack import MAX_DEPTH, NAMED_FAILURES, Unpack
from mhnos_runtime.files.archives.untar import Untar
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from tests.files.archives.packing import (
    archive,
    block,
    code,
    extended,
    member,
    record,
    unpack,
    why,
)

LINK, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def link(name: str, target: str) -> bytes:
    return member(name, kind=LINK, linkname=target)


def hard(name: str, target: str) -> bytes:
    return member(name, kind=HARD, linkname=target)


def tree(root: Path) -> dict[str, str]:
    """What is below a folder: content of files, "-> target" of links, "/" for directories."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text()
    return found


class TestWhatIsMade:
    def test_files_folders_links_modes_and_times(self, workspace: Workspace, root: Path) -> None:
        result = unpack(
            workspace,
            archive(
                member("./", kind=FOLDER, mode=0o777),
                member("./a/", kind=FOLDER, mode=0o750, mtime=1_000_000_000),
                member("./a/run.sh", b"#!/bin/sh", mode=0o755, mtime=1_100_000_000),
                member("deep/down/x", b"made parents"),
                link("a/link", "../deep/down/x"),
                hard("a/hard", "a/run.sh"),
            ),
        )
        assert (result.written, result.failed, result.bytes) == (6, 0, 21)
        into = root / "into"
        assert tree(into) == {
            "a": "/",
            "a/run.sh": "#!/bin/sh",
            "a/link": "-> ../deep/down/x",
            "a/hard": "#!/bin/sh",
            "deep": "/",
            "deep/down": "/",
            "deep/down/x": "made parents",
        }
        assert (into / "a").stat().st_mtime == 1_000_000_000
        assert stat.S_IMODE((into / "a").stat().st_mode) == 0o750
        run = (into / "a/run.sh").stat()
        assert (stat.S_IMODE(run.st_mode), run.st_mtime, run.st_nlink) == (0o755, 1_100_000_000, 2)

    @pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o6711])
    def test_special_bits_are_dropped(self, workspace: Workspace, root: Path, mode: int) -> None:
        data = archive(member("f", mode=mode), member("d", kind=FOLDER, mode=mode))
        assert unpack(workspace, data).failed == 0
        for name in ("f", "d"):
            assert stat.S_IMODE((root / "into" / name).stat().st_mode) == mode & 0o777

    def test_modes_that_the_umask_would_take(self, workspace: Workspace, root: Path) -> None:
        old = os.umask(0o077)
        try:
            assert unpack(workspace, archive(member("f", mode=0o666))).failed == 0
        finally:
            os.umask(old)
        assert stat.S_IMODE((root / "into/f").stat().st_mode) == 0o666

    def test_a_read_only_folder_is_filled_first(self, workspace: Workspace, root: Path) -> None:
        data = archive(member("d/", kind=FOLDER, mode=0o555), member("d/f", b"x"))
        assert unpack(workspace, data).failed == 0
        assert stat.S_IMODE((root / "into/d").stat().st_mode) == 0o555
        (root / "into/d").chmod(0o755)

    def test_a_folder_called_as_the_workspace(self, workspace: Workspace, root: Path) -> None:
        assert unpack(workspace, archive(member("workspace/f", b"x"))).failed == 0
        assert (root / "into/workspace/f").read_text() == "x"

    def test_any_size_of_pieces(self, workspace: Workspace, root: Path) -> None:
        data = archive(member("a", b"a" * 700), member("b", b""), member("c", b"c" * 3000))
        for step in (1, 511, 1000):
            assert unpack(workspace, data, f"/{step}", step).written == 3
            assert (root / str(step) / "c").read_bytes() == b"c" * 3000

    def test_into_the_top_and_through_a_link_inside(self, workspace: Workspace, root: Path) -> None:
        (root / "real").mkdir()
        (root / "way").symlink_to("real")
        assert unpack(workspace, archive(member("f", b"top")), "/").failed == 0
        assert unpack(workspace, archive(member("f", b"x")), "/way").failed == 0
        assert ((root / "f").read_text(), (root / "real/f").read_text()) == ("top", "x")


class TestWhatStandsThere:
    def test_is_replaced_as_a_whole(self, workspace: Workspace, root: Path) -> None:
        (root / "into").mkdir()
        (root / "into/f").write_text("old")
        with open(root / "into/f") as held:
            assert unpack(workspace, archive(member("f", b"new"))).failed == 0
            assert held.read() == "old"
        assert (root / "into/f").read_text() == "new"

    def test_a_link_is_replaced_and_its_target_kept(self, workspace: Workspace, root: Path) -> None:
        (root / "into").mkdir()
        (root / "kept").write_text("kept")
        for name, target in (("in", "../kept"), ("out", "../../ws-secret/canary")):
            (root / "into" / name).symlink_to(target)
        assert unpack(workspace, archive(member("in", b"new"), member("out", b"new"))).failed == 0
        assert tree(root) == {"into": "/", "into/in": "new", "into/out": "new", "kept": "kept"}

    def test_other_kinds_stay(self, workspace: Workspace, root: Path) -> None:
        (root / "into/d/full").mkdir(parents=True)
        os.mkfifo(root / "into/fifo")
        (root / "into/file").write_text("file")
        result = unpack(
            workspace,
            archive(
                *(member("d", b"x"), link("d", "file"), member("fifo", b"x"), hard("fifo", "file")),
                *(member("file/", kind=FOLDER), member("file/below", b"x"), member("last", b"x")),
            ),
        )
        assert (result.written, result.failed) == (1, 6)
        assert (root / "into/last").read_text() == "x"
        assert stat.S_ISFIFO((root / "into/fifo").stat().st_mode)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    def test_a_read_only_file_stays(self, workspace: Workspace, root: Path) -> None:
        (root / "into").mkdir()
        (root / "into/f").write_text("old")
        (root / "into/f").chmod(0o444)
        assert why(unpack(workspace, archive(member("f", b"new")))) == {"f": "Permission denied"}

    def test_a_hard_link_onto_itself_leaves_nothing_behind(self, workspace: Workspace, root: Path) -> None:
        assert unpack(workspace, archive(member("f", b"x"), hard("f", "f"), hard("g", "f"))).failed == 0
        assert tree(root / "into") == {"f": "x", "g": "x"}


class TestNoWayOut:
    @pytest.mark.parametrize(
        "name",
        [
            *("/etc/passwd", "//x", "../x", "a/../../x", "a/..", "..", "/..", "./../ws-secret/new", "/"),
            *("a/./../../ws-secret/canary", "/workspace/x", "", ".", "./."),
            *("n" * 256, "a/" * MAX_DEPTH + "x", "d/" * 2100, PARTIAL_PREFIX + "x", f"a/{PARTIAL_PREFIX}x/b"),
        ],
        ids=lambda name: name[:20] or "empty",
    )
    @pytest.mark.parametrize("kind", [tarfile.REGTYPE, LINK, HARD], ids=["file", "link", "hard"])
    def test_names(self, workspace: Workspace, root: Path, name: str, kind: bytes) -> None:
        odd = extended(record("path", name)) + member("x", kind=kind, linkname="good")
        if not name:  # An empty value means the name in the header.
            odd = block(b"", kind, target=b"good")
        result = unpack(workspace, archive(member("good", b"x"), odd, member("next", b"x")))
        assert (result.written, result.failed) == (2, 1)
        assert tree(root) == {"into": "/", "into/good": "x", "into/next": "x"}

    @pytest.mark.parametrize("raw", [b"a\0b", b"\xff\xfe", b"ok/\xc3(", b"\xed\xa0\x80"])
    def test_names_that_are_no_text(self, workspace: Workspace, root: Path, raw: bytes) -> None:
        odd = extended(record("path", raw)) + block(b"x")
        result = unpack(workspace, archive(odd, member("next", b"x")))
        assert (result.written, result.failed) == (1, 1)
        assert tree(root / "into") == {"next": "x"}
        result.failures[0][0].encode()

    @pytest.mark.parametrize(
        "target",
        [
            "/etc",
            "/",
            "../..",
            "../../ws-secret",
            "x/../../..",
            "a/../../../y",
            "../into/../../z",
            "//",
        ],
    )
    def test_links_that_lead_out_are_not_made(self, workspace: Workspace, root: Path, target: str) -> None:
        data = archive(link("d/way", target), member("d/way/new", b"x"))
        result = unpack(workspace, data)
        assert result.failures[0][0] == "d/way"
        assert not (root / "into/d/way").is_symlink()

    @pytest.mark.parametrize("raw", [b"", b"a\0b", b"t" * 5000])
    def test_links_to_what_is_no_path(self, workspace: Workspace, root: Path, raw: bytes) -> None:
        odd = extended(record("linkpath", raw)) + block(b"way", b"2")
        assert (unpack(workspace, archive(odd))).failed == 1

    def test_a_link_made_by_the_archive_leads_nowhere_else(self, workspace: Workspace, root: Path) -> None:
        """Each text stays inside by itself; together they would lead out, one folder at a time."""
        result = unpack(
            workspace,
            archive(
                member("a/b/", kind=FOLDER),
                link("a/b/up", "../.."),
                link("out", "a/b/up/../../ws-secret"),
                link("more", "a/b/up/a/b/up/a/../.."),
                member("out/new", b"x"),
                member("out/canary", b"x"),
                member("more/new", b"x"),
                hard("stolen", "out/canary"),
                member("out/folder/", kind=FOLDER, mode=0o777),
            ),
        )
        assert "stolen" in why(result)
        assert not (root / "into/stolen").exists()

    def test_links_of_the_workspace_are_not_followed_out_of_the_target(
        self, workspace: Workspace, root: Path
    ) -> None:
        """What is unpacked into a folder changes nothing beside it, whatever links are in it."""
        (root / "into").mkdir()
        (root / "beside").mkdir()
        (root / "beside/file").write_text("kept")
        (root / "into/way").symlink_to("../beside")
        (root / "into/out").symlink_to("../../ws-secret")
        result = unpack(
            workspace,
            archive(
                *(member("way/file", b"x"), member("out/canary", b"x"), member("way/", kind=FOLDER)),
                *(hard("hard", "way/file"), hard("stolen", "out/canary"), member("out/d/", kind=FOLDER)),
            ),
        )
        assert (result.written, result.failed) == (0, 6)
        assert tree(root / "beside") == {"file": "kept"}

    def test_links_inside_are_followed(self, workspace: Workspace, root: Path) -> None:
        data = archive(member("real/", kind=FOLDER), link("way", "real"), member("way/f", b"x"))
        assert unpack(workspace, data).failed == 0
        assert (root / "into/real/f").read_text() == "x"

    @pytest.mark.parametrize(
        "target", ["/etc/passwd", "../outside", "missing", "folder", "way", "", "../../ws-secret/canary"]
    )
    def test_hard_links(self, workspace: Workspace, root: Path, target: str) -> None:
        data = archive(member("folder/", kind=FOLDER), link("way", "folder"), hard("hard", target))
        assert unpack(workspace, data).failures[0][0] == "hard"
        assert not os.path.lexists(root / "into/hard")

    @pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"?"])
    def test_devices_fifos_and_the_unknown(self, workspace: Workspace, root: Path, kind: bytes) -> None:
        data = archive(member("odd", kind=kind, devmajor=1, devminor=5), member("next", b"x"))
        result = unpack(workspace, data)
        assert (result.written, result.failed) == (1, 1)
        assert tree(root / "into") == {"next": "x"}

    def test_a_limited_grant_reaches_its_folder_alone(self, workspace: Workspace, root: Path) -> None:
        (root / "mine").mkdir()
        (root / "mine/way").symlink_to("../yours")
        (root / "yours").mkdir()
        mine = workspace.limited(["/mine"])
        assert code(lambda: unpack(mine, archive(member("f", b"x")), "/yours")) == "forbidden"
        assert code(lambda: unpack(mine, archive(member("f", b"x")), "/mine/way")) == "outside-workspace"
        assert unpack(mine, archive(member("way/f", b"x")), "/mine").failed == 1
        assert tree(root / "yours") == {}


class TestWhatFails:
    def test_failures_are_counted_and_the_first_ones_named(self, workspace: Workspace) -> None:
        result = unpack(workspace, archive(*(member(f"../{number}") for number in range(150))))
        assert (result.failed, len(result.failures)) == (150, NAMED_FAILURES)

    def test_an_archive_that_breaks_keeps_what_came_before(self, workspace: Workspace, root: Path) -> None:
        data = member("whole", b"x") + member("half", b"y" * 2000)[:1024]
        with pytest.raises(MhnosError):
            unpack(workspace, data)
        assert tree(root / "into") == {"whole": "x"}

    def test_too_many_entries(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unpacking, "MAX_ENTRIES", 3)
        with pytest.raises(LimitReached):
            unpack(workspace, archive(*(member(str(number)) for number in range(4))))

    def test_room_is_looked_for(self, root: Path, outside: Path) -> None:
        disk = os.statvfs(root)
        free = disk.f_bavail * disk.f_frsize
        with Workspace(root, min_free=2 * free) as full:
            reasons = why(unpack(full, archive(member("f", b"x"), member("d/", kind=FOLDER))))
            assert "are to stay free" in reasons["f"]
            with Unpack(full, "/into") as made, pytest.raises(LimitReached):
                made.require_space(1)

    def test_more_folders_than_are_dated(
        self, workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unpacking, "MAX_DATED", 1)
        data = archive(member("a/", kind=FOLDER, mtime=5), member("b/", kind=FOLDER, mtime=5))
        assert unpack(workspace, data).written == 2
        assert (root / "into/a").stat().st_mtime == 5 != (root / "into/b").stat().st_mtime

    def test_a_folder_that_is_held_is_resolved_again(
        self, workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that was moved away gets no more than some entries."""
        monkeypatch.setattr(unpacking, "_FOLDER_USES", 2)
        with Unpack(workspace, "/into") as made:
            parser = Untar()
            for number in range(8):
                for _ in made.take(parser.feed(member(f"d/{number}", b"x"))):
                    pass
                if number == 3:
                    (root / "into/d").rename(root / "away")
            assert made.result.failed == 0
        assert len(os.listdir(root / "away")) + len(os.listdir(root / "into/d")) == 8
        assert len(os.listdir(root / "into/d")) >= 2

    def test_a_time_that_no_file_system_has(self, workspace: Workspace, root: Path) -> None:
        data = archive(extended(record("mtime", "9" * 17)) + block(b"f"))
        assert unpack(workspace, data).failed == 0

    def test_what_a_format_says_at_the_end_of_an_entry(self, workspace: Workspace, root: Path) -> None:
        events: list[Event] = [
            ArchiveEntry(b"f", "file", 3),
            memoryview(b"abc"),
            End("It is wrong"),
        ]
        with Unpack(workspace, "/into") as made:
            for _ in made.take([*events, ArchiveEntry(b"g", "file"), END]):
                pass
            assert why(made.result) == {"f": "It is wrong"}
        assert tree(root / "into") == {"g": ""}

    @pytest.mark.parametrize("unnamed", [True, False])
    def test_a_spare_file_has_no_name(
        self, workspace: Workspace, root: Path, unnamed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> int:
            raise OSError

        if not unnamed:
            monkeypatch.setattr(unpacking, "create_unnamed", refuse)
        with Unpack(workspace, "/into") as made:
            fd = made.spare()
            assert os.fstat(fd).st_nlink == 0
            os.close(fd)
        assert os.listdir(root / "into") == []

    def test_a_folder_that_goes_away(self, workspace: Workspace, root: Path) -> None:
        with Unpack(workspace, "/into") as made:
            parser = Untar()
            data = member("d/f", b"x" * 2000)
            list(made.take(parser.feed(data[:1024])))
            for each in (root / "into/d").iterdir():
                each.unlink()
            (root / "into/d").rmdir()
            list(made.take(parser.feed(data[1024:] + member("g", b"x"))))
            assert (made.result.written, made.result.failed) == (1, 1)
