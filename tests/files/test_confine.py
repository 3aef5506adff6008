"""Hostile paths, one at a time: what a client can write and what a process can lay in its way."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import InvalidRequest, MhnosError, NotFound, Refused, Unavailable
from mhnos_runtime.files.confine import Workspace


@pytest.fixture(params=["whole", "limited"])
def workspace(request: pytest.FixtureRequest, root: Path, outside: Path) -> Iterator[Workspace]:
    """limited: as for a grant of some folders, one of which is the top, so that all tricks can be tried."""
    with Workspace(root) as opened:
        yield opened if request.param == "whole" else opened.limited(["/", "/nowhere"])


CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def read(workspace: Workspace, path: str, base: str = "/") -> bytes:
    fd = workspace.open_file(path, os.O_RDONLY, base=base)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def write(workspace: Workspace, path: str, content: bytes, create_parents: bool = False) -> None:
    with os.fdopen(workspace.open_file(path, CREATE, create_parents=create_parents), "wb") as file:
        file.write(content)


def attempts(workspace: Workspace, path: str) -> list[Callable[[], object]]:
    return [
        lambda: workspace.open_dir(path),
        lambda: workspace.open_file(path, os.O_RDONLY),
        lambda: workspace.open_file(path, CREATE, create_parents=True),
        lambda: workspace.make_dirs(path),
        lambda: workspace.real_path(path),
    ]


def refused(workspace: Workspace, path: str, code: str = "outside-workspace") -> None:
    """Every way in is refused with `code`, and the message names the client's path only."""
    for attempt in attempts(workspace, path):
        with pytest.raises(MhnosError) as caught:
            attempt()
        assert caught.value.code == code
        assert str(workspace.root) not in caught.value.message


class TestPlainPaths:
    def test_three_spellings_name_one_file(self, workspace: Workspace) -> None:
        write(workspace, "/a/b", b"here", create_parents=True)
        for path in ("/a/b", "a/b", "/workspace/a/b"):
            assert read(workspace, path) == b"here"
        assert read(workspace, "b", base="/a") == read(workspace, "../a/b", base="a") == b"here"

    def test_missing_things_are_named_as_the_client_names_them(self, workspace: Workspace) -> None:
        for attempt in (
            lambda: workspace.open_dir("/demos/x"),
            lambda: workspace.open_file("/demos/x", os.O_RDONLY),
            lambda: workspace.open_file("/demos/x", CREATE),
            lambda: workspace.real_path("/demos/x"),
        ):
            with pytest.raises(NotFound) as caught:
                attempt()
            assert caught.value.code == "not-found"
            assert caught.value.message.endswith(": /demos/x")

    def test_a_file_is_no_directory(self, workspace: Workspace) -> None:
        write(workspace, "/a", b"")
        for path in ("/a", "/a/b", "/a/b/c"):
            for attempt in (workspace.open_dir, workspace.make_dirs):
                with pytest.raises(InvalidRequest, match="Not a directory: /a"):
                    attempt(path)
        with pytest.raises(InvalidRequest, match="Not a directory: /a"):
            workspace.open_file("/a/b", CREATE, create_parents=True)

    def test_a_directory_is_no_file(self, workspace: Workspace) -> None:
        workspace.make_dirs("/a")
        for path in ("/a", "/"):
            for flags in (os.O_RDONLY, CREATE):
                with pytest.raises(InvalidRequest, match="Is a directory"):
                    workspace.open_file(path, flags)

    def test_creating(self, workspace: Workspace, root: Path) -> None:
        write(workspace, "/new/deep/file", b"longer than what follows", create_parents=True)
        write(workspace, "/new/deep/file", b"short")
        assert (root / "new/deep/file").read_bytes() == b"short"
        with pytest.raises(InvalidRequest, match="Already exists"):
            workspace.open_file("/new/deep/file", CREATE | os.O_EXCL)
        os.close(workspace.open_file("/private", CREATE | os.O_EXCL, 0o600))
        assert stat.S_IMODE((root / "private").stat().st_mode) == 0o600

    def test_make_dirs_twice(self, workspace: Workspace, root: Path) -> None:
        for _ in range(2):
            workspace.make_dirs("/a/b/c")
            workspace.make_dirs("/")
        assert (root / "a/b/c").is_dir()

    def test_open_dir_can_be_entered_and_listed(self, workspace: Workspace) -> None:
        write(workspace, "/a/b", b"x", create_parents=True)
        path_only, listing = workspace.open_dir("/a"), workspace.open_dir("/a", listing=True)
        try:
            os.close(os.open("b", os.O_RDONLY, dir_fd=path_only))
            assert os.listdir(listing) == ["b"]
        finally:
            os.close(path_only)
            os.close(listing)

    def test_real_path(self, workspace: Workspace, root: Path) -> None:
        write(workspace, "/a/b", b"", create_parents=True)
        (root / "link").symlink_to("a/b")
        assert (
            workspace.real_path("/link") == workspace.real_path("b", "/a") == os.path.realpath(root / "a/b")
        )
        assert workspace.real_path("/") == os.path.realpath(root)

    def test_real_path_after_the_workspace_was_moved(self, workspace: Workspace, root: Path) -> None:
        write(workspace, "/a", b"")
        moved = root.rename(root.with_name("moved"))
        assert workspace.real_path("/a") == os.path.realpath(moved / "a")
        moved.rename(root)

    def test_names_of_odd_bytes_from_a_process_do_no_harm(self, workspace: Workspace, root: Path) -> None:
        os.mkdir(os.fsencode(root) + b"/\xff\xfe")
        Path(root, "link").symlink_to(os.fsdecode(b"\xff\xfe"))
        Path(root, "dead").symlink_to(os.fsdecode(b"\xff\xfe/x/y"))
        write(workspace, "/link/file", b"x")
        with pytest.raises(NotFound):
            read(workspace, "/dead")
        with pytest.raises(InvalidRequest) as caught:
            read(workspace, "/link/file/x")
        caught.value.message.encode()

    def test_a_folder_called_workspace_is_reached_by_its_full_spelling(
        self, workspace: Workspace, root: Path
    ) -> None:
        (root / "workspace").mkdir()
        write(workspace, "/workspace/workspace/a", b"inner")
        assert (root / "workspace/a").read_bytes() == b"inner"

    def test_the_root_may_be_a_link_of_the_operator(self, root: Path, tmp_path: Path) -> None:
        (root / "a").write_bytes(b"x")
        (tmp_path / "alias").symlink_to(root)
        with Workspace(tmp_path / "alias") as opened:
            assert read(opened, "/a") == b"x"
            assert opened.real_path("/a") == os.path.realpath(root / "a")

    def test_the_whole_disk_as_workspace(self) -> None:
        with Workspace("/") as opened:
            assert opened.real_path("/usr") == os.path.realpath("/usr")
            assert opened.real_path("/") == "/"

    @pytest.mark.parametrize("name", ["missing", "file"])
    def test_a_root_that_is_no_directory(self, tmp_path: Path, name: str) -> None:
        """A server must come up without it; it is taken as soon as it is there."""
        (tmp_path / "file").touch()
        with Workspace(tmp_path / name) as opened:
            assert not opened.is_in_place()
            with pytest.raises(Unavailable, match=name):
                opened.open_dir("/")
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).mkdir()
            assert opened.is_in_place()
            assert opened.real_path("/") == os.path.realpath(tmp_path / name)

    def test_closing_twice(self, root: Path) -> None:
        opened = Workspace(root)
        opened.close()
        opened.close()
        with pytest.raises(MhnosError):
            opened.open_dir("/")


class TestOutside:
    @pytest.mark.parametrize(
        "path",
        [
            "/../ws-secret/canary",
            "../ws-secret/canary",
            "/a/../../ws-secret/canary",
            "/workspace/..",
            "/workspace/../ws-secret/canary",
            "/workspace/workspace/../../..",
            "-secret/../../ws-secret/canary",
        ],
    )
    def test_dots(self, workspace: Workspace, path: str) -> None:
        workspace.make_dirs("/a")
        refused(workspace, path)

    def test_a_sibling_whose_name_starts_like_ours(self, workspace: Workspace, root: Path) -> None:
        (root / "up").symlink_to("../ws-secret")
        refused(workspace, "/up/canary")
        refused(workspace, "/up")

    @pytest.mark.parametrize(
        "target",
        [
            "/etc/passwd",
            "/etc",
            "/",
            "..",
            "../",
            "../ws",
            "a/../..",
            "a/../../ws-secret/canary",
            "//etc",
            "inner/../../x",
        ],
    )
    def test_links(self, workspace: Workspace, root: Path, target: str) -> None:
        (root / "a").mkdir()
        (root / "inner").symlink_to("a")
        (root / "link").symlink_to(target)
        refused(workspace, "/link")
        refused(workspace, "/link/x")

    def test_an_absolute_link_into_the_workspace_is_still_absolute(
        self, workspace: Workspace, root: Path
    ) -> None:
        (root / "a").touch()
        (root / "link").symlink_to(root / "a")
        refused(workspace, "/link")

    def test_a_link_to_a_link_outside(self, workspace: Workspace, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/out").symlink_to("../../ws-secret")
        (root / "link").symlink_to("d/out/canary")
        refused(workspace, "/link")

    def test_proc_magic_is_text_to_us(self, workspace: Workspace, root: Path, outside: Path) -> None:
        fd = os.open(outside, os.O_PATH)
        try:
            with Workspace("/proc/self/fd") as opened, pytest.raises(Refused):
                opened.open_file(f"/{fd}/canary", os.O_RDONLY)
        finally:
            os.close(fd)


class TestLinksInside:
    def test_are_followed(self, workspace: Workspace, root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/file").write_bytes(b"target")
        (root / "a/b/up").symlink_to("../file")
        (root / "dir").symlink_to("./a//b/")
        (root / "a/b/back").symlink_to("../../dir/../file")
        for path in ("/a/b/up", "/dir/up", "/a/b/back", "/dir/back"):
            assert read(workspace, path) == b"target"

    def test_dots_of_a_client_are_lexical(self, workspace: Workspace, root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "file").write_bytes(b"top")
        (root / "a/file").write_bytes(b"below")
        (root / "link").symlink_to("a/b")
        assert read(workspace, "/link/../file") == b"top"

    def test_dots_of_a_link_are_physical(self, workspace: Workspace, root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/file").write_bytes(b"below")
        (root / "link").symlink_to("a/b")
        (root / "other").symlink_to("link/../file")
        assert read(workspace, "/other") == b"below"

    def test_a_link_may_name_the_top(self, workspace: Workspace, root: Path) -> None:
        (root / "a").mkdir()
        (root / "a/top").symlink_to("..")
        (root / "a/same").symlink_to(".")
        assert workspace.real_path("/a/top") == os.path.realpath(root)
        assert workspace.real_path("/a/same") == os.path.realpath(root / "a")
        with pytest.raises(InvalidRequest, match="Is a directory"):
            workspace.open_file("/a/top", CREATE)

    def test_a_dangling_link_creates_its_target(self, workspace: Workspace, root: Path) -> None:
        (root / "link").symlink_to("deep/new")
        write(workspace, "/link", b"made", create_parents=True)
        assert (root / "deep/new").read_bytes() == b"made"
        assert (root / "link").is_symlink()

    def test_not_followed_when_not_wanted(self, workspace: Workspace, root: Path) -> None:
        (root / "d").mkdir()
        (root / "link").symlink_to("d")
        with pytest.raises(InvalidRequest, match="Not a directory"):
            workspace.open_dir("/link", follow=False)
        with workspace.resolve("/link", follow=False) as place:
            assert stat.S_ISLNK(place.mode)
        with (
            pytest.raises(InvalidRequest, match="Not a directory: /link"),
            workspace.resolve("/link/x", follow=False),
        ):
            pass

    @pytest.mark.parametrize("links", [("a", "a"), ("a", "b", "a"), ("a", "a/x")])
    def test_loops(self, workspace: Workspace, root: Path, links: tuple[str, ...]) -> None:
        for name, target in itertools.pairwise(links):
            (root / name).symlink_to(target)
        refused(workspace, "/a", "invalid-argument")
        refused(workspace, "/a/b/c", "invalid-argument")

    def test_forty_links_and_no_more(self, workspace: Workspace, root: Path) -> None:
        (root / "0").write_bytes(b"end")
        for number in range(1, 42):
            (root / str(number)).symlink_to(str(number - 1))
        assert read(workspace, "/40") == b"end"
        refused(workspace, "/41", "invalid-argument")

    def test_a_maze_of_dots_ends(self, workspace: Workspace, root: Path) -> None:
        """Each `..` in a link starts the walk over, so that long links in deep folders would take minutes."""
        deep = "d/" * 100
        (root / deep).mkdir(parents=True)
        (root / deep / "maze").symlink_to("../d/" * 800 + "maze")
        with pytest.raises(InvalidRequest, match="too many steps"):
            workspace.open_dir(f"/{deep}maze")

    def test_a_deep_tree_needs_few_descriptors(self, workspace: Workspace, root: Path) -> None:
        deep = "d/" * 1500
        workspace.make_dirs(deep)
        write(workspace, deep + "f", b"deep")
        assert read(workspace, deep + "f") == b"deep"
        fd = os.open(root, os.O_RDONLY)
        remove_deep(fd, 1500)
        os.close(fd)


def remove_deep(top: int, levels: int) -> None:
    """Removes the chain of `d` below `top`, which is too deep for pytest's own clean-up."""
    fds = [os.dup(top)]
    try:
        for _ in range(levels):
            os.rename("d", f"flat{_}", src_dir_fd=fds[-1], dst_dir_fd=top)
            fds.append(os.open(f"flat{_}", os.O_RDONLY, dir_fd=top))
            os.close(fds.pop(0))
    finally:
        for fd in fds:
            os.close(fd)


class TestNotFiles:
    def test_a_fifo_never_hangs(self, workspace: Workspace, root: Path) -> None:
        os.mkfifo(root / "fifo")
        for flags in (os.O_RDONLY, os.O_WRONLY, CREATE):
            with pytest.raises(InvalidRequest, match="Not a regular file: /fifo"):
                workspace.open_file("/fifo", flags)

    def test_a_socket(self, workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock")
        with pytest.raises(InvalidRequest, match="Not a regular file"):
            workspace.open_file("/sock", os.O_RDONLY)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
    def test_a_device(self, workspace: Workspace, root: Path) -> None:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        for flags in (os.O_RDONLY, CREATE):
            with pytest.raises(InvalidRequest, match="Not a regular file"):
                workspace.open_file("/null", flags)

    def test_a_leased_file_is_busy_and_does_not_hang(self, workspace: Workspace, root: Path) -> None:
        """A process may hold a lease on its file; an ordinary open then waits for up to 45 s."""
        (root / "leased").write_bytes(b"x")
        told = signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            with (root / "leased").open("r+b") as holder:
                fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                with pytest.raises(Unavailable, match="In use by another program: /leased"):
                    workspace.open_file("/leased", os.O_RDONLY)
                fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        finally:
            signal.signal(signal.SIGIO, told)

    def test_no_permission(self, workspace: Workspace, root: Path, as_nobody: None) -> None:
        with pytest.raises(Refused, match="Permission denied: /new"):
            workspace.open_file("/new", CREATE)
        with pytest.raises(Refused, match="Permission denied: /new/sub"):
            workspace.make_dirs("/new/sub")


@pytest.fixture
def as_nobody(root: Path) -> Iterator[None]:
    """The calling thread without root's rights, and a workspace that it may read but not write."""
    root.chmod(0o555)
    if os.geteuid() != 0:
        yield
        root.chmod(0o755)
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        root.chmod(0o755)
