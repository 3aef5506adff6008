"""Push and pull: every byte there and back, and one bad entry among good ones."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError
from mhnos_runtime.files import push_pull
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from mhnos_runtime.files.push_pull import PulledFile, PushEntry, pull, push

PLENTY = 1 << 30


def file(path: str, content: bytes = b"", mtime_ms: float | None = None) -> PushEntry:
    return PushEntry(path, "file", [content], mtime_ms)


def pulled(workspace: Workspace) -> dict[str, bytes | None]:
    """Path to content, None for a directory; in the order of the pull."""
    return {
        item.path: None if item.kind == "directory" else b"".join(item.chunks())
        for item in pull(workspace, max_bytes=PLENTY)
    }


def skipped(workspace: Workspace) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in pull(workspace, max_bytes=PLENTY, on_skip=found.__setitem__):
        pass
    return found


def only_error(workspace: Workspace, entry: PushEntry) -> str:
    """Pushes it between two good ones, which must arrive, and gives its error's text."""
    result = push(workspace, [file("/good1", b"1"), entry, file("/good2", b"2")])
    assert (result.synced, result.failed) == (2, 1)
    contents = pulled(workspace)
    assert (contents["/good1"], contents["/good2"]) == (b"1", b"2")
    (path, error) = result.errors[0]
    assert path == entry.path
    assert not any(PARTIAL_PREFIX in name for _, _, names in os.walk(workspace.root) for name in names)
    return error


class TestPush:
    def test_files_directories_and_parents(self, workspace: Workspace, root: Path) -> None:
        entries = [
            file("/a/b/c.txt", b"content", 1_700_000_000_123.0),
            PushEntry("/empty", "directory", mtime_ms=1_600_000_000_000),
            PushEntry("e/in chunks", "file", [b"one", b"", b"two"]),
            PushEntry("/workspace/none", "file"),
            PushEntry("/", "directory"),
        ]
        result = push(workspace, entries)
        assert (result.synced, result.failed, result.errors) == (5, 0, [])
        assert (root / "a/b/c.txt").read_bytes() == b"content"
        assert (root / "a/b/c.txt").stat().st_mtime_ns == 1_700_000_000_123_000_000
        assert (root / "empty").stat().st_mtime_ns == 1_600_000_000_000_000_000
        assert (root / "e/in chunks").read_bytes() == b"onetwo"
        assert (root / "none").read_bytes() == b""

    def test_a_directory_keeps_its_date_though_files_follow(self, workspace: Workspace, root: Path) -> None:
        push(workspace, [PushEntry("/d", "directory", mtime_ms=5000.0), file("/d/f", b"x", 7000.5)])
        assert (root / "d").stat().st_mtime_ns == 5_000_000_000
        assert (root / "d/f").stat().st_mtime_ns == 7_000_500_000

    def test_an_existing_file_is_truncated_and_keeps_its_mode(self, workspace: Workspace, root: Path) -> None:
        (root / "run.sh").write_bytes(b"a long old content")
        (root / "run.sh").chmod(0o4775)
        (root / "secret").write_bytes(b"")
        (root / "secret").chmod(0o600)
        push(workspace, [file("/run.sh", b"new"), file("/secret", b"x"), file("/fresh", b"")])
        assert (root / "run.sh").read_bytes() == b"new"
        assert stat.S_IMODE((root / "run.sh").stat().st_mode) == 0o775
        assert stat.S_IMODE((root / "secret").stat().st_mode) == 0o600
        assert stat.S_IMODE((root / "fresh").stat().st_mode) == 0o644

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_the_owner_stays(self, workspace: Workspace, root: Path) -> None:
        (root / "theirs").touch()
        os.chown(root / "theirs", 1234, 2345)
        push(workspace, [file("/theirs", b"x")])
        assert ((root / "theirs").stat().st_uid, (root / "theirs").stat().st_gid) == (1234, 2345)

    def test_no_reader_sees_half_a_file(self, workspace: Workspace, root: Path) -> None:
        (root / "f").write_bytes(b"old")
        seen = []

        def chunks() -> Iterator[bytes]:
            for part in (b"ne", b"w"):
                yield part
                seen.append(((root / "f").read_bytes(), pulled(workspace)))

        push(workspace, [PushEntry("/f", "file", chunks())])
        assert seen == [(b"old", {"/f": b"old"})] * 2
        assert (root / "f").read_bytes() == b"new"

    def test_a_link_stays_and_its_target_changes(self, workspace: Workspace, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/real").write_bytes(b"old")
        (root / "link").symlink_to("d/real")
        (root / "dangling").symlink_to("d/later")
        push(workspace, [file("/link", b"new"), file("/dangling", b"made")])
        assert (root / "link").is_symlink()
        assert (root / "dangling").is_symlink()
        assert ((root / "d/real").read_bytes(), (root / "d/later").read_bytes()) == (b"new", b"made")

    def test_a_new_name_may_be_as_long_as_names_can_be(self, workspace: Workspace, root: Path) -> None:
        assert push(workspace, [file("/" + "n" * 255, b"x")]).failed == 0

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("/d", "Is a directory: /d"),
            ("/", "Is a directory: /"),
            ("/f/below", "Not a directory: /f"),
            ("/fifo", "Not a regular file: /fifo"),
            ("/../x", "Leads outside the workspace: /../x"),
            ("/out", "Leads outside the workspace: /out"),
            ("/outdir/x", "Leads outside the workspace: /outdir/x"),
            ("/loop", "Too many symbolic links: /loop"),
            ("/a\0b", "Path with a NUL character: /a\\x00b"),
            ("/" + "n" * 256, "Path with a name longer than 255 bytes: /nnn"),
        ],
    )
    def test_bad_paths(self, workspace: Workspace, root: Path, path: str, error: str) -> None:
        (root / "d").mkdir()
        (root / "f").write_bytes(b"old")
        os.mkfifo(root / "fifo")
        (root / "out").symlink_to("../ws-secret/canary")
        (root / "outdir").symlink_to("../ws-secret")
        (root / "loop").symlink_to("loop")
        assert only_error(workspace, file(path, b"x")).startswith(error)
        assert (root / "f").read_bytes() == b"old"

    def test_a_file_where_a_directory_should_be(self, workspace: Workspace, root: Path) -> None:
        (root / "f").write_bytes(b"old")
        assert only_error(workspace, PushEntry("/f", "directory")) == "Not a directory: /f"

    def test_what_is_no_kind(self, workspace: Workspace) -> None:
        entry = PushEntry("/x", "symlink")  # type: ignore[arg-type]
        assert only_error(workspace, entry) == 'Kind is neither "file" nor "directory": /x'

    @pytest.mark.parametrize("mtime_ms", [float("nan"), float("inf"), -float("inf"), 1e300])
    def test_no_instant(self, workspace: Workspace, root: Path, mtime_ms: float) -> None:
        assert "mtime" in only_error(workspace, file("/x", b"x", mtime_ms))
        assert not (root / "x").exists()

    @pytest.mark.parametrize("mtime_ms", [0, 0.5, -1.5, 8.64e15, -8.64e15])
    def test_far_instants(self, workspace: Workspace, mtime_ms: float) -> None:
        assert push(workspace, [file("/x", b"x", mtime_ms)]).errors == []

    def test_chunks_that_fail_leave_the_old_content(self, workspace: Workspace, root: Path) -> None:
        (root / "f").write_bytes(b"old")

        def chunks() -> Iterator[bytes]:
            yield b"half of the new"
            raise InvalidRequest("content: a number is over 255")

        assert only_error(workspace, PushEntry("/f", "file", chunks())) == "content: a number is over 255"
        assert (root / "f").read_bytes() == b"old"

    def test_a_defect_in_the_caller_leaves_no_partial_file(self, workspace: Workspace, root: Path) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            push(workspace, [PushEntry("/f", "file", chunks())])
        assert os.listdir(root) == []

    def test_a_read_only_file_is_not_replaced(self, workspace: Workspace, root: Path) -> None:
        (root / "f").write_bytes(b"old")
        (root / "f").chmod(0o444)
        root.chmod(0o777)
        with unprivileged():
            result = push(workspace, [file("/f", b"new"), file("/g", b"new")])
        assert result.errors == [("/f", "Permission denied: /f")]
        assert (root / "f").read_bytes() == b"old"

    def test_a_directory_that_may_not_be_written(self, workspace: Workspace, root: Path) -> None:
        (root / "d").mkdir(mode=0o555)
        root.chmod(0o777)
        with unprivileged():
            result = push(
                workspace, [file("/d/f", b"new"), PushEntry("/d/e", "directory"), file("/g", b"new")]
            )
        assert result.errors == [("/d/f", "Permission denied: /d/f"), ("/d/e", "Permission denied: /d/e")]

    def test_a_name_that_becomes_a_directory_as_it_is_written(self, workspace: Workspace, root: Path) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"x"
            (root / "f").mkdir()

        assert only_error(workspace, PushEntry("/f", "file", chunks())) == "Is a directory: /f"
        assert (root / "f").is_dir()


class TestPull:
    def test_everything_once_in_order(self, workspace: Workspace, root: Path) -> None:
        push(
            workspace,
            [
                file("/b/z", b"z"),
                file("/b/a", b"a"),
                PushEntry("/b/e", "directory"),
                file("/a"),
                file("/b.c", b"c"),
            ],
        )
        assert list(pulled(workspace).items()) == [
            ("/a", b""),
            ("/b", None),
            ("/b/a", b"a"),
            ("/b/e", None),
            ("/b/z", b"z"),
            ("/b.c", b"c"),
        ]

    def test_an_empty_workspace(self, workspace: Workspace) -> None:
        assert pulled(workspace) == {}

    def test_what_is_left_out(self, workspace: Workspace, root: Path) -> None:
        """It costs nothing of the bounds either, and its namesakes elsewhere come."""
        push(workspace, [file("/a/cache/x", b"12345"), file("/b/a/cache/x", b"1"), file("/a/cached", b"2")])
        found = pull(workspace, max_bytes=2, max_entries=7, leave_out={"/a/cache"})
        assert [item.path for item in found] == [
            "/a",
            "/a/cached",
            "/b",
            "/b/a",
            "/b/a/cache",
            "/b/a/cache/x",
        ]

    def test_sizes_and_dates(self, workspace: Workspace) -> None:
        push(
            workspace,
            [file("/d/f", b"12345", 1_700_000_000_123.0), PushEntry("/d", "directory", mtime_ms=1.5)],
        )
        found = {item.path: (item.size, item.mtime_ms) for item in pull(workspace, max_bytes=PLENTY)}
        assert found == {"/d": (0, 1.5), "/d/f": (5, 1_700_000_000_123.0)}

    def test_links(self, workspace: Workspace, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/f").write_bytes(b"real")
        (root / "d/loop").symlink_to("..")
        (root / "to file").symlink_to("d/f")
        (root / "to dir").symlink_to("d")
        (root / "out").symlink_to("../ws-secret/canary")
        (root / "abs").symlink_to("/etc/passwd")
        (root / "dangling").symlink_to("nowhere")
        (root / "self").symlink_to("self")
        assert pulled(workspace) == {"/d": None, "/d/f": b"real", "/to file": b"real"}
        assert skipped(workspace) == {
            "/d/loop": "Is a directory: /d/loop",
            "/to dir": "Is a directory: /to dir",
            "/out": "Leads outside the workspace: /out",
            "/abs": "Leads outside the workspace: /abs",
            "/dangling": "No such file or directory: /dangling",
            "/self": "Too many symbolic links: /self",
        }

    def test_what_is_no_file(self, workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        os.mkfifo("fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock")
        if os.geteuid() == 0:
            os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert pulled(workspace) == {}
        assert set(skipped(workspace)) >= {"/fifo", "/sock"}

    def test_names_that_are_not_utf8(self, workspace: Workspace, root: Path) -> None:
        (root / "good é").write_bytes(b"x")
        Path(root, os.fsdecode(b"bad\xff")).write_bytes(b"x")
        (root / os.fsdecode(b"dir\xff")).mkdir()
        (root / os.fsdecode(b"dir\xff") / "f").write_bytes(b"x")
        assert pulled(workspace) == {"/good é": b"x"}
        reasons = skipped(workspace)
        assert sorted(reasons) == ["/bad\\udcff", "/dir\\udcff"]
        assert all("not valid UTF-8" in reason for reason in reasons.values())

    def test_unreadable_things(self, workspace: Workspace, root: Path) -> None:
        (root / "f").write_bytes(b"x")
        (root / "f").chmod(0)
        (root / "d").mkdir(mode=0)
        (root / "g").write_bytes(b"y")
        with unprivileged():
            assert pulled(workspace) == {"/d": None, "/g": b"y"}
            assert skipped(workspace) == {"/f": "Permission denied: /f", "/d": "Permission denied: /d"}
        (root / "d").chmod(0o755)

    def test_a_folder_called_workspace_comes_back_in_place(self, workspace: Workspace, root: Path) -> None:
        (root / "workspace").mkdir()
        (root / "workspace/f").write_bytes(b"x")
        contents = pulled(workspace)
        assert contents == {"/workspace/workspace": None, "/workspace/workspace/f": b"x"}
        (root / "workspace/f").unlink()
        push(workspace, [file("/workspace/workspace/f", b"again")])
        assert (root / "workspace/f").read_bytes() == b"again"

    def test_files_that_change_meanwhile(self, workspace: Workspace, root: Path) -> None:
        for name in "abcd":
            (root / name).write_bytes(b"12345")
        (root / "e").mkdir()
        (root / "e/f").touch()
        found = {}
        for item in pull(workspace, max_bytes=20):
            if item.path == "/a":
                (root / "a").write_bytes(b"1234567890")
                (root / "b").unlink()
                (root / "e/f").unlink()
                (root / "e").rmdir()
                (root / "e").symlink_to("/etc")
            if item.path == "/c":
                os.truncate(root / "c", 2)
            found[item.path] = b"".join(item.chunks(3))
        assert found == {"/a": b"12345", "/c": b"12", "/d": b"12345"}

    def test_content_is_there_until_the_next_is_asked_for(self, workspace: Workspace, root: Path) -> None:
        (root / "a").write_bytes(b"a")
        (root / "b").write_bytes(b"b")
        items = pull(workspace, max_bytes=10)
        first = next(items)
        assert [*first.chunks(), *first.chunks()] == [b"a", b"a"]
        next(items)
        with pytest.raises(ValueError, match="closed"):
            list(first.chunks())
        items.close()  # type: ignore[attr-defined]

    def test_one_that_is_left_early_closes_what_it_opened(self, workspace: Workspace, root: Path) -> None:
        (root / "a").write_bytes(b"a")
        for _ in pull(workspace, max_bytes=10):
            break

    def test_too_many_bytes(self, workspace: Workspace, root: Path) -> None:
        (root / "a").write_bytes(b"12345")
        (root / "b").write_bytes(b"123456")
        assert len(list(pull(workspace, max_bytes=11))) == 2
        with pytest.raises(LimitReached, match="at least 11 bytes; one pull carries 10") as caught:
            list(pull(workspace, max_bytes=10))
        assert caught.value.code == "too-large"

    def test_a_sparse_giant_costs_nothing(self, workspace: Workspace, root: Path) -> None:
        (root / "a").touch()
        os.truncate(root / "a", 1 << 40)
        (root / "b").write_bytes(b"12345")
        left_out: list[tuple[str, str]] = []
        found = list(pull(workspace, max_bytes=PLENTY, on_skip=lambda *one: left_out.append(one)))
        assert [item.path for item in found] == ["/b"]
        assert left_out == [("/a", f"{1 << 40} bytes, and one pull carries {PLENTY}: /a")]

    def test_too_many_entries(self, workspace: Workspace, root: Path) -> None:
        for number in range(11):
            (root / str(number)).touch()
        assert len(list(pull(workspace, max_bytes=1, max_entries=11))) == 11
        with pytest.raises(LimitReached, match="more than the 10 files"):
            list(pull(workspace, max_bytes=1, max_entries=10))

    def test_a_hostile_depth_ends(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each path is walked from the top: 100,000 files 2,000 levels down would take an hour."""
        monkeypatch.setattr(push_pull, "MAX_PULL_STEPS", 1000)
        workspace.make_dirs("d/" * 44)
        assert len(pulled(workspace)) == 44
        workspace.make_dirs("d/" * 45)
        with pytest.raises(LimitReached, match="too deep"):
            pulled(workspace)

    @pytest.mark.skipif(not Path("/usr/bin/sleep").exists(), reason="needs a program to copy")
    def test_a_running_program_is_replaced(self, workspace: Workspace, root: Path) -> None:
        program = root / "program"
        shutil.copy("/usr/bin/sleep", program)
        with subprocess.Popen([program, "60"]) as running:
            try:
                result = push(workspace, [file("/program", b"new")])
            finally:
                running.kill()
        assert result.errors == []
        assert program.read_bytes() == b"new"
        assert os.access(program, os.X_OK)

    def test_a_failing_disk_is_told_with_the_clients_path(
        self, workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "a").write_bytes(b"x")

        def pread(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "pread", pread)
        with pytest.raises(MhnosError, match="Input/output error: /a"):
            pulled(workspace)

    def test_more_directories_than_descriptors(self, workspace: Workspace, root: Path) -> None:
        push(workspace, [file("d/" * 100 + "f", b"x")])
        assert len(pulled(workspace)) == 101

    def test_paths_beyond_the_bound_are_reported(self, workspace: Workspace, root: Path) -> None:
        names = [str(number % 10) * 250 for number in range(18)]
        fd = os.open(root, os.O_RDONLY)
        for name in names:
            os.mkdir(name, dir_fd=fd)
            fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd
            os.close(old)
        os.close(fd)
        assert len(pulled(workspace)) == 16
        (reason,) = skipped(workspace).values()
        assert reason.startswith("Path longer than 4096 bytes")


@contextmanager
def unprivileged() -> Iterator[None]:
    """The process without root's rights while inside, where it has them."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..", "workspace")
)
TREES = st.recursive(
    st.binary(max_size=200), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
).filter(lambda tree: isinstance(tree, dict))


def entries_of(tree: object, path: str = "") -> Iterator[PushEntry]:
    if isinstance(tree, bytes):
        yield PushEntry(path, "file", [tree[:100], tree[100:]])
    elif isinstance(tree, dict):
        if path:
            yield PushEntry(path, "directory")
        for name, inner in tree.items():
            yield from entries_of(inner, f"{path}/{name}")


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_there_and_back(tree: object) -> None:
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        Workspace(one) as first,
        Workspace(two) as second,
    ):
        assert push(first, entries_of(tree)).errors == []
        again = push(second, (_copied(item) for item in pull(first, max_bytes=PLENTY)))
        assert again.errors == []
        expected = {entry.path: _content(entry) for entry in entries_of(tree)}
        assert pulled(first) == pulled(second) == expected
        assert list(pulled(first)) == sorted(expected, key=lambda path: path.split("/"))


def _copied(item: PulledFile) -> PushEntry:
    return PushEntry(item.path, item.kind, item.chunks(7), item.mtime_ms)


def _content(entry: PushEntry) -> bytes | None:
    return b"".join(entry.chunks) if entry.kind == "file" else None
