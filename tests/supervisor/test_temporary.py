"""Folders for temporary files: whose they are, and that they go, whatever was left in them."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.supervisor import temporary
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.temporary import PREFIX, TemporaryFolders


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "REMOVE_SECONDS", 0.1)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: links, sockets and folders are made in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def run_until(loop: Loop, folders: TemporaryFolders, done: Callable[[], bool]) -> None:
    """Let the loop work, and reap for it."""

    def look() -> None:
        if folders.os_pid and os.waitpid(folders.os_pid, os.WNOHANG)[0]:
            folders.reaped()
        if done() and not folders.os_pid:
            loop.stop()
        else:
            loop.after(0.001, look)

    loop.after(0, look)
    loop.run()


def run_until_gone(loop: Loop, folders: TemporaryFolders, place: Path) -> None:
    """Let the loop work until nothing of a process is left."""
    run_until(loop, folders, lambda: not left_in(place))


def left_in(place: Path) -> list[Path]:
    return [*place.glob(f"{PREFIX}*/p*"), *place.glob(f"{PREFIX}*/gone/*"), *place.glob(f"{PREFIX}*/kept*")]


def runtimes(place: Path) -> list[str]:
    return [path.name for path in place.iterdir() if path.name.startswith(PREFIX)]


def test_a_folder_is_its_users_alone_and_goes(loop: Loop, place: Path) -> None:
    folders = TemporaryFolders(loop, str(place))
    user = (1234, 1235) if os.geteuid() == 0 else None
    made = Path(folders.make(1000, user))
    status = made.stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert (status.st_uid, status.st_gid) == (user or (os.getuid(), os.getgid()))
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o711
    folders.remove(1000)
    folders.remove(1000)
    assert not made.exists()
    run_until_gone(loop, folders, place)
    folders.close()
    assert list(place.iterdir()) == []


def test_the_runtimes_folder_is_made_for_the_first_process_only(loop: Loop, place: Path) -> None:
    folders = TemporaryFolders(loop, str(place))
    folders.remove(1000)
    assert list(place.iterdir()) == []
    parents = {Path(folders.make(pid, None)).parent for pid in (1000, 1001)}
    assert len(parents) == 1
    folders.remove(1000)
    folders.remove(1001)
    folders.close()
    assert list(place.iterdir()) == []


def leave_much(folder: Path) -> None:
    """Links outwards, what cannot be entered, what is no file, and a depth at which paths are too long."""
    (folder / "link").symlink_to("/etc")
    (folder / "link-up").symlink_to("../..")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    for mode in (0o000, 0o500, 0o555):
        closed = folder / f"closed-{mode}"
        closed.mkdir()
        (closed / "inner").mkdir()
        (closed / "inner" / "file").write_text("x")
        (closed / "link").symlink_to("/etc")
        closed.chmod(mode)
    (folder / "many").mkdir()
    for number in range(500):
        (folder / "many" / str(number)).write_text("x")
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a-rather-long-name-of-a-folder", dir_fd=here)
        below = os.open("a-rather-long-name-of-a-folder", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_all_that_was_left_goes_and_no_link_is_followed(loop: Loop, place: Path) -> None:
    kept = place / "kept"
    kept.mkdir()
    (kept / "file").write_text("of somebody else")
    folders = TemporaryFolders(loop, str(place))
    made = Path(folders.make(1000, None))
    other = Path(folders.make(1001, None))
    (other / "file").write_text("of another")
    leave_much(made)
    (made / "out").symlink_to(kept)
    (made / "over").symlink_to(other)
    os.link(kept / "file", made / "hard")
    descriptors = len(os.listdir("/proc/self/fd"))
    folders.remove(1000)
    run_until(loop, folders, lambda: not any((made.parent / "gone").iterdir()))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert (kept / "file").read_text() == "of somebody else"
    assert (other / "file").read_text() == "of another"
    folders.remove(1001)
    run_until_gone(loop, folders, place)
    folders.close()
    assert runtimes(place) == []


def test_the_ends_of_many_share_one_fork(loop: Loop, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forks: list[int] = []
    fork = os.fork

    def counted() -> int:
        forks.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    folders = TemporaryFolders(loop, str(place))
    for pid in range(50):
        (Path(folders.make(pid, None)) / "file").write_text("x")
    for pid in range(50):
        folders.remove(pid)
    run_until_gone(loop, folders, place)
    assert len(forks) == 1
    # And what comes while that one works, or after it, is not forgotten.
    folders.make(50, None)
    folders.remove(50)
    run_until_gone(loop, folders, place)
    assert len(forks) == 2
    folders.close()


def test_what_cannot_be_removed_is_in_nobodys_way(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stuck", "other"):
        (place / "gone" / name).mkdir(parents=True)
        (place / "gone" / name / f"file-{name}").write_text("x")
    unlink = os.unlink

    def refusing(name: str, *, dir_fd: int) -> None:
        if name == "file-stuck":
            raise PermissionError(name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    fd = os.open(place, os.O_RDONLY)
    temporary.remove_gone(fd)
    os.close(fd)
    monkeypatch.undo()
    assert list((place / "gone").iterdir()) == []
    (kept,) = place.glob("kept-*")
    assert [path.name for path in kept.iterdir()] == ["file-stuck"]


def test_what_a_killed_runtime_left_goes_with_the_next_one(loop: Loop, place: Path) -> None:
    killed, alive = (TemporaryFolders(loop, str(place)) for _ in range(2))
    left = Path(killed.make(1000, None))
    (left / "file").write_text("x")
    used = Path(alive.make(1000, None))
    (used / "file").write_text("x")
    os.close(killed.state().fd)
    foreign = place / f"{PREFIX}foreign"
    foreign.symlink_to("/etc")
    (place / f"{PREFIX}file").write_text("x")
    fresh = TemporaryFolders(loop, str(place))
    made = Path(fresh.make(1000, None))
    run_until(loop, fresh, lambda: not left.exists() and not any((made.parent / "gone").iterdir()))
    assert (used / "file").read_text() == "x"
    assert foreign.is_symlink()
    assert made.exists()
    for folders in (alive, fresh):
        folders.remove(1000)
        folders.close()
    assert sorted(runtimes(place)) == [f"{PREFIX}file", f"{PREFIX}foreign"]


def test_a_folder_of_another_user_is_left_alone(loop: Loop, place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder for somebody else")
    foreign = place / f"{PREFIX}0123"
    foreign.mkdir()
    os.chown(foreign, 1234, 1234)
    folders = TemporaryFolders(loop, str(place))
    folders.make(1000, None)
    folders.remove(1000)
    folders.close()
    assert foreign.exists()


def test_where_everything_in_the_place_was_removed_the_next_process_gets_a_folder(
    loop: Loop, place: Path
) -> None:
    folders = TemporaryFolders(loop, str(place))
    first = Path(folders.make(1000, None))
    first.rmdir()
    (first.parent / "gone").rmdir()
    first.parent.rmdir()
    second = Path(folders.make(1001, None))
    assert second.is_dir()
    folders.remove(1000)
    folders.remove(1001)
    folders.close()
    assert list(place.iterdir()) == []


def test_a_new_supervisor_goes_on_with_what_the_old_one_had(loop: Loop, place: Path) -> None:
    old = TemporaryFolders(loop, str(place))
    made = Path(old.make(1000, None))
    (made / "file").write_text("x")
    state = old.state()
    assert state.descriptors == (state.fd,)
    new = TemporaryFolders(loop, str(place))
    new.restore(state)
    assert not os.get_inheritable(state.fd)
    assert Path(new.make(1001, None)).parent == made.parent
    for pid in (1000, 1001):
        new.remove(pid)
    run_until_gone(loop, new, place)
    new.close()
    assert list(place.iterdir()) == []


def test_the_end_waits_for_a_bounded_time_only(
    loop: Loop, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary, "END_SECONDS", 0.0)
    folders = TemporaryFolders(loop, str(place))
    made = Path(folders.make(1000, None))
    for number in range(50):
        (made / str(number)).write_text("x")
    folders.remove(1000)
    folders.close()
    (left,) = runtimes(place)
    # The next one takes it over.
    fresh = TemporaryFolders(loop, str(place))
    fresh.make(1000, None)
    fresh.remove(1000)
    run_until_gone(loop, fresh, place)
    fresh.close()
    assert not (place / left).exists()


def test_no_place_is_said(loop: Loop, place: Path) -> None:
    folders = TemporaryFolders(loop, str(place / "missing"))
    with pytest.raises(FileNotFoundError):
        folders.make(1000, None)
    folders.remove(1000)
    folders.close()
