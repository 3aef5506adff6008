"""What archives take out of a workspace, whatever their format: real trees, deep, wide, odd and changing."""

from __future__ import annotations

import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import LimitReached, Unavailable
from mhnos_runtime.files.archives import walk
from mhnos_runtime.files.archives.walk import SKIPPED_NAME, WHOLE_BYTES, Member, Skipped, members
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import Ignore
from mhnos_runtime.files.paths import PARTIAL_PREFIX

ENTRIES = int(os.environ.get("MHNOS_TEST_ENTRIES", "5000"))
"""In one folder; 1000000 is the figure that has to hold, and takes a minute to make."""


@pytest.fixture
def top(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def found(top: int, skipped: Skipped | None = None) -> dict[str, Member]:
    return {each.path: each for each in members(top, skipped or Skipped()) if each is not None}


def left_out(top: int) -> str:
    skipped = Skipped()
    for each in members(top, skipped):
        if each is not None and each.fd >= 0:
            list(each.pieces(skipped))
    return skipped.text().decode()


class TestTrees:
    def test_everything_once_and_folders_first(self, root: Path, top: int) -> None:
        for number in range(5):
            (root / f"d{number}/in/ner").mkdir(parents=True)
            (root / f"d{number}/in/file").write_text(str(number))
        paths = list(found(top))
        assert len(paths) == 20
        assert all(
            "/" not in path or paths.index(path.rpartition("/")[0]) < at for at, path in enumerate(paths)
        )

    def test_what_is_excluded_is_not_entered_and_not_told(self, root: Path, top: int) -> None:
        for name in ("a.log", "keep.log", "src/b.log", "src/node_modules/x/y", "src/c.py", "build/out"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        (root / os.fsdecode(b"bad\xff.log")).touch()
        (root / "src/node_modules/x").chmod(0)
        skipped = Skipped()
        rules = Ignore.of(["node_modules/", "*.log", "!keep.log", "/build"])
        paths = {each.path for each in members(top, skipped, rules) if each is not None}
        assert paths == {"keep.log", "src", "src/c.py"}
        assert not skipped
        (root / "src/node_modules/x").chmod(0o755)

    def test_links_are_texts(self, root: Path, top: int, outside: Path) -> None:
        (root / "out").symlink_to("../ws-secret/canary")
        (root / "folder").symlink_to(outside)
        (root / "gone").symlink_to("nothing")
        assert {path: (each.kind, each.data) for path, each in found(top).items()} == {
            "out": ("link", b"../ws-secret/canary"),
            "folder": ("link", os.fsencode(outside)),
            "gone": ("link", b"nothing"),
        }

    def test_unfinished_files_and_what_was_told_before_are_left_out(self, root: Path, top: int) -> None:
        for name in (f"{PARTIAL_PREFIX}x", SKIPPED_NAME, "kept"):
            (root / name).touch()
        (root / f"d/{PARTIAL_PREFIX}y").mkdir(parents=True)
        assert sorted(found(top)) == ["d", "kept"]

    @pytest.mark.parametrize("levels", [walk._OPEN_LEVELS, 300])
    def test_deep_ones_hold_few_descriptors(self, root: Path, top: int, levels: int) -> None:
        here = os.dup(top)
        for _ in range(levels):
            for name in ("a", "z"):
                os.mkdir(name, dir_fd=here)
            os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
            below = os.open("a", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        before, most, count = len(os.listdir("/proc/self/fd")), 0, 0
        for each in members(top, Skipped()):
            count += each is not None
            if count % 50 == 0:
                most = max(most, len(os.listdir("/proc/self/fd")))
        assert count == 3 * levels
        assert most - before <= walk._OPEN_LEVELS + 3

    def test_names_that_are_not_utf8(self, root: Path, top: int) -> None:
        os.mkdir(b"\xff", dir_fd=top)
        os.close(os.open(b"\xff/\xfe", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=top))
        assert sorted(found(top)) == ["\udcff", "\udcff/\udcfe"]


class TestLeftOut:
    def test_what_is_no_file_is_told_and_not_opened(self, root: Path, top: int) -> None:
        os.mkfifo(root / "fifo")
        assert left_out(top) == "fifo: neither a file nor a directory nor a link\n"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_what_may_not_be_read_is_told(self, root: Path, top: int) -> None:
        (root / "file").write_text("x")
        (root / "file").chmod(0)
        (root / "folder").mkdir(mode=0)
        assert sorted(left_out(top).splitlines()) == ["file: Permission denied", "folder/: Permission denied"]
        (root / "folder").chmod(0o700)

    def test_so_many_are_named(self, top: int) -> None:
        skipped = Skipped()
        assert not skipped
        for number in range(walk.NAMED + 3):
            skipped.add(f"{number}\n\udcff", "why")
        lines = skipped.text().decode().splitlines()
        assert (len(lines), lines[-1], lines[0]) == (walk.NAMED + 1, "and 3 more", "0\\n\\udcff: why")

    def test_more_folders_than_are_kept_in_mind(
        self, root: Path, top: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(walk, "_PENDING_BYTES", 4)
        for name in ("a", "b", "c"):
            (root / name).mkdir()
        assert left_out(top).count("too many directories") == 1

    def test_a_runtime_without_descriptors_ends_it(self, top: int) -> None:
        """A file that is left out for this would look like one that is not there."""
        with pytest.raises(LimitReached):
            Skipped().failed("f", OSError(24, "Too many open files"))


class TestChanges:
    """Each comes just between two steps: no luck needed."""

    def test_folders_that_went_or_became_links(self, root: Path, top: int, outside: Path) -> None:
        for name in ("gone", "link", "file"):
            (root / name).mkdir()
        skipped = Skipped()
        walking = walk._Walk(top, skipped, None)
        assert list(walking.files()) == []
        (root / "gone").rmdir()
        (root / "link").rmdir()
        (root / "link").symlink_to(outside)
        (root / "file").rmdir()
        (root / "file").touch()
        assert walking.enter() is None
        assert len(skipped.text().splitlines()) == 3
        walking.close()

    def test_a_folder_that_becomes_a_link_once_it_was_looked_at(
        self, root: Path, top: int, outside: Path
    ) -> None:
        (root / "d").mkdir()
        skipped = Skipped()
        walking = walk._Walk(top, skipped, None)
        assert list(walking.files()) == []
        assert walking.enter() is not None
        (root / "d").rmdir()
        (root / "d").symlink_to(outside)
        assert list(walking.files()) == []
        assert skipped.text().startswith(b"d/: ")
        walking.close()

    def test_a_file_that_became_a_link_or_a_fifo(self, root: Path, top: int) -> None:
        skipped = Skipped()
        walking = walk._Walk(top, skipped, None)
        (root / "link").symlink_to("../ws-secret/canary")
        with pytest.raises(OSError, match="symbolic"):
            walking._file(top, "link", "link")
        os.mkfifo(root / "fifo")
        assert walking._file(top, "fifo", "fifo") is None
        assert skipped.text() == b"fifo: became something else while it was read\n"

    @pytest.mark.parametrize("size", [0, 5, WHOLE_BYTES, WHOLE_BYTES + 1, 3 * WHOLE_BYTES])
    def test_files_have_the_size_they_are_said_to_have(self, root: Path, top: int, size: int) -> None:
        (root / "f").write_bytes(b"x" * size)
        for each in members(top, Skipped()):
            assert each is not None
            content = each.data if each.fd < 0 else b"".join(each.pieces(Skipped()))
            assert (each.size, len(content)) == (size, size)
            assert (each.fd < 0) == (size <= WHOLE_BYTES)

    def test_one_that_grows_is_read_up_to_its_size(self, root: Path, top: int) -> None:
        """A copy of a workspace in which something writes a log is no failed one."""
        (root / "log").write_bytes(b"x" * 2 * WHOLE_BYTES)
        skipped = Skipped()
        for each in members(top, skipped):
            assert each is not None
            with open(root / "log", "ab") as log:
                log.write(b"more")
            assert sum(map(len, each.pieces(skipped))) == 2 * WHOLE_BYTES
        assert not skipped

    def test_one_that_is_rewritten_is_told_of(self, root: Path, top: int) -> None:
        (root / "db").write_bytes(b"x" * 2 * WHOLE_BYTES)
        skipped = Skipped()
        for each in members(top, skipped):
            assert each is not None
            with open(root / "db", "r+b") as file:
                file.write(b"y")
            os.utime(root / "db", ns=(1, each.mtime_ns + 1))  # the clock may not have ticked
            assert sum(map(len, each.pieces(skipped))) == 2 * WHOLE_BYTES
        assert skipped.text().startswith(b"db: changed while it was read")

    def test_one_that_shrinks_ends_it_all(self, root: Path, top: int) -> None:
        (root / "log").write_bytes(b"x" * 2 * WHOLE_BYTES)
        walking = members(top, Skipped())
        each = next(walking)
        assert each is not None
        os.truncate(root / "log", WHOLE_BYTES)
        with pytest.raises(Unavailable, match="shorter"):
            list(each.pieces(Skipped()))

    def test_a_disk_that_fails_ends_it_all(
        self, root: Path, top: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        (root / "f").write_bytes(b"x" * 2 * WHOLE_BYTES)
        (each,) = (found(top)).values()
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(Unavailable):
            list(each.pieces(Skipped()))

    def test_a_short_read_is_no_end(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Network file systems may give less than was asked for."""
        (root / "f").write_bytes(b"abcdef")
        plain = os.read
        fd = os.open(root / "f", os.O_RDONLY)
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", lambda fd, size: plain(fd, min(size, 2)))
            assert walk._read(fd, 6) == b"abcdef"
        os.lseek(fd, 0, os.SEEK_SET)
        assert (walk._read(fd, 4), walk._read(fd, 9)) == (b"abcd", b"f")
        os.close(fd)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["files", "folders", "fifos"])
def test_a_folder_of_very_many_takes_little_memory(root: Path, top: int, kind: str) -> None:
    make = {"files": os.mknod, "folders": os.mkdir, "fifos": os.mkfifo}[kind]
    for number in range(ENTRIES):
        make(root / f"entry-{number:07}")
    skipped, count = Skipped(), 0
    tracemalloc.start()
    for each in members(top, skipped):
        count += each is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == (0 if kind == "fifos" else ENTRIES)
    assert bool(skipped) == (kind == "fifos")
    assert peak < 1_000_000 + 40 * ENTRIES * (kind == "folders")
    assert stat.S_ISDIR(os.fstat(top).st_mode)


def test_an_end_in_the_middle_closes_everything(workspace: Workspace, root: Path) -> None:
    """The fixture counts descriptors."""
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/large").write_bytes(b"x" * 2 * WHOLE_BYTES)
    top = workspace.open_dir("/", listing=True)
    walking = members(top, Skipped())
    for each in walking:
        if each is not None and each.fd >= 0:
            break
    walking.close()  # type: ignore[attr-defined]
    os.close(top)
