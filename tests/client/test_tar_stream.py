"""Directories as tar streams: what goes in comes out, and nothing is written but into the directory."""

from __future__ import annotations

import gc
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.client import tar_stream
from mhnos_runtime.client.errors import ConnectionLost, ProtocolViolation, SourceChanged
from mhnos_runtime.client.tar_stream import (
    SKIPPED,
    Transferred,
    beside,
    members,
    pack,
    settle,
    understood,
    unpack,
)

LARGE = os.urandom(2_500_000)


def packed(directory: Path) -> tuple[bytes, Transferred]:
    done = Transferred()
    return b"".join(pack(str(directory), done)), done


def archive(*entries: tuple[str, bytes | None], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A tar of files, with content, or of what `kind` says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            if content is None:
                info.type, info.linkname = kind, link
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def tree(directory: Path) -> dict[str, object]:
    """Each path with what is there: content, mode and time; a link's target; None for a directory."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        status = path.lstat()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = (path.read_bytes(), stat.S_IMODE(status.st_mode), int(status.st_mtime))
    return found


def make_tree(directory: Path) -> None:
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "empty").mkdir()
    (directory / "run.sh").write_bytes(b"#!/bin/sh\n")
    (directory / "run.sh").chmod(0o755)
    (directory / "sub" / "large").write_bytes(LARGE)
    (directory / "sub" / "deep" / ("n" * 200)).write_bytes(b"long")
    (directory / "ü\n").write_bytes(b"")
    (directory / "link").symlink_to("sub/large")
    (directory / "dangling").symlink_to("nowhere")
    os.utime(directory / "run.sh", (1_000_000_000, 1_000_000_000))


@pytest.mark.parametrize("at_once", [1 << 30, 999])
def test_what_goes_in_comes_out(tmp_path: Path, at_once: int) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    make_tree(here)
    data, sent = packed(here)
    told: list[int] = []
    pieces = (data[start : start + at_once] for start in range(0, len(data), at_once))
    taken = unpack(pieces, str(there), told.append)
    assert tree(there) == tree(here)
    assert (sent.files, sent.bytes) == (taken.files, taken.bytes) == (9, len(LARGE) + 14)
    assert sent.skipped == taken.skipped == []
    assert told[-1] == taken.bytes
    assert unpack([data], str(there)).files == 9, "over itself"
    assert tree(there) == tree(here)


def test_other_programs_read_it(tmp_path: Path) -> None:
    make_tree(tmp_path)
    data, _ = packed(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        assert "sub/deep/" + "n" * 200 in names
        content = tar.extractfile("sub/large")
        assert content is not None
        assert content.read() == LARGE


def test_what_is_no_file_and_what_cannot_be_named_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"x")
    (tmp_path / "good").write_bytes(b"x")
    data, sent = packed(tmp_path)
    assert [member.name for member, _ in members([data])] == ["good"]
    assert dict(sent.skipped) == {
        "fifo": "neither a file, a directory nor a symbolic link",
        "'\\udcff'": "its name is not UTF-8",
    }
    assert sent.skipped_count == 2


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        packed(tmp_path / "none")


def test_a_large_file_that_shrinks_ends_the_archive(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    pieces = pack(str(tmp_path), Transferred())
    next(pieces)
    os.truncate(tmp_path / "large", 5)
    with pytest.raises(SourceChanged, match="large: there are 5 bytes"):
        list(pieces)


def test_of_a_large_file_that_grows_what_it_was_at_the_start_goes_along(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    pieces = pack(str(tmp_path), Transferred())
    first = next(pieces)
    with (tmp_path / "large").open("ab") as file:
        file.write(b"more")
    [(_, content)] = [(each, file.read()) for each, file in members([first, *pieces]) if file is not None]
    assert content == LARGE


def test_a_small_file_that_grows_goes_along_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 1000)
    data, _ = packed(tmp_path)
    ((member, _),) = members([data])
    assert member.size == 1000


def test_members_that_were_taken_take_no_memory() -> None:
    """tarfile keeps each member that it has read, 400 bytes of it, also of a stream."""
    taken = members([archive(*((str(n), b"") for n in range(100)))])
    there = [sum(isinstance(each, tarfile.TarInfo) for each in gc.get_objects()) for _ in taken]
    assert max(there) - min(there) < 10


# Archives that lie


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "link/evil", "deep/link/evil"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    (inside / "deep").mkdir(parents=True)
    for link in (inside / "link", inside / "deep" / "link"):
        link.symlink_to(outside)
    unpack([archive((name, b"evil"))], str(inside))
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "evil").exists()
    assert not Path("/etc/evil").exists()


@pytest.mark.parametrize("target", ["/etc", "../outside", "a/../../outside"])
def test_links_of_an_archive_lead_nowhere_else(tmp_path: Path, target: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside").mkdir()
    data = archive(("link", None), ("link/evil", b"evil"), kind=tarfile.SYMTYPE, link=target)
    done = unpack([data], str(inside))
    assert not (inside / "link").is_symlink()
    assert done.skipped_count >= 1
    assert list((tmp_path / "outside").iterdir()) == []


def test_no_file_is_written_through_a_link_of_the_archive(tmp_path: Path) -> None:
    """Links come last, so that one inside the directory is replaced by the directory that it stood for, or is
    skipped: what a file is written through is never an archive's own."""
    data = archive(("link", None), ("link/file", b"x"), kind=tarfile.SYMTYPE, link=".")
    done = unpack([data], str(tmp_path))
    assert (tmp_path / "link" / "file").read_bytes() == b"x"
    assert not (tmp_path / "file").exists()
    assert [path for path, _ in done.skipped] == ["link"]


def test_links_that_are_harmless_each_lead_nowhere_else_together(tmp_path: Path) -> None:
    """Each of these leads inside by its text alone. But once `x` leads to the directory itself, `x/up` is one
    level less deep than it says, and a link below that would replace a file beside the directory."""
    inside, mine = tmp_path / "inside", tmp_path / "mine"
    inside.mkdir()
    mine.write_bytes(b"mine")
    done = unpack([links(("x", "."), ("x/up", ".."), ("x/up/mine", "../../inside/evil"))], str(inside))
    assert (mine.is_symlink(), mine.read_bytes()) == (False, b"mine")
    assert [path for path, _ in done.skipped] == ["x/up"]
    assert all(path.resolve().is_relative_to(inside) for path in inside.rglob("*"))


def test_a_link_does_not_lead_out_by_one_that_comes_later(tmp_path: Path) -> None:
    """`d/../ok` is `ok`, unless `d` is a link: then the kernel goes up from where that leads."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "ok").write_bytes(b"outside")
    unpack([links(("way", "d/../ok"), ("d", "."))], str(inside))
    assert not (inside / "way").exists()


def links(*entries: tuple[str, str]) -> bytes:
    """A tar of links: (name, target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def test_a_link_that_stands_there_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "a").symlink_to("target")
    unpack([archive(("a", b"new"))], str(tmp_path))
    assert (tmp_path / "target").read_bytes() == b"old"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_hard_links_are_skipped(tmp_path: Path, kind: bytes) -> None:
    done = unpack([archive(("a", b"x"), ("b", None), kind=kind, link="a")], str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert done.skipped == [("b", "neither a file, a directory nor a symbolic link")]


def test_bits_that_let_a_file_run_as_somebody_else_are_not_taken_over(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.mode, info.mtime = 0o6755, -5
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    unpack([out.getvalue()], str(tmp_path))
    status = (tmp_path / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 0)


def test_a_member_that_has_no_place_is_skipped_and_the_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "taken" / "in").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    data = archive(("taken", b"x"), ("file/below", b"x"), ("n" * 300, b"x"), ("good", b"x"))
    done = unpack([data], str(tmp_path))
    assert (tmp_path / "good").read_bytes() == b"x"
    assert [path[:10] for path, _ in done.skipped] == ["taken", "file/below", "n" * 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "good", "taken"]


@pytest.mark.parametrize("name", ["a\0b", ".", "./", "a/" * 300 + "b", "a/" * 1500 + "b"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_a_name_that_no_file_has_is_skipped(tmp_path: Path, name: str, kind: bytes) -> None:
    data = special(kind, path=name) + archive(("good", b"x"))
    done = unpack([data], str(tmp_path))
    assert done.skipped_count == 1
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


@pytest.mark.parametrize("milliseconds", [1_700_000_000_123, 1_699_999_999_999, 1])
def test_times_are_kept_to_the_millisecond(tmp_path: Path, milliseconds: int) -> None:
    """The nearest number of seconds that a float has is often just below, and would be cut off."""
    with beside(str(tmp_path / "a")) as file:
        settle(file, 0o644, milliseconds / 1000)
    assert (tmp_path / "a").stat().st_mtime_ns == milliseconds * 1_000_000


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_time_that_is_none(tmp_path: Path, kind: bytes) -> None:
    unpack([special(kind, path="a", mtime="nan") + archive(("good", b"x"))], str(tmp_path))
    assert (tmp_path / "a").stat().st_mtime == 0


def test_an_extended_header_takes_no_more_memory_than_it_may() -> None:
    with pytest.raises(ProtocolViolation, match="extended header"), understood():
        list(members([special(tarfile.REGTYPE, path="a", comment="x" * 2_000_000)]))


def special(kind: bytes, **told: str) -> bytes:
    """A member of a tar with these records in its extended header, without what ends the tar."""
    info = tarfile.TarInfo("a")
    info.type, info.linkname, info.pax_headers = kind, "good", told
    return info.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 512, archive(("a", b"x" * 5000))[:1500]])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="damaged"):
        unpack([data], str(tmp_path))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_lost_connection_is_told_as_such(tmp_path: Path) -> None:
    def cut() -> Iterator[bytes]:
        yield archive(("a", b"x" * 5000))[:1500]
        raise ConnectionLost("cut")

    with pytest.raises(ConnectionLost):
        unpack(cut(), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# What the server left out

TOLD = b"/b: c: no reason\n/d: denied\nand 5 more\n"


def test_the_last_member_tells_what_was_left_out(tmp_path: Path) -> None:
    done = unpack([archive(("a", b"x"), (SKIPPED, TOLD))], str(tmp_path))
    assert done.skipped == [("/b: c", "no reason"), ("/d", "denied"), ("and 5 more", "")]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_of_that_name_before_others_is_a_file(tmp_path: Path) -> None:
    done = unpack([archive((SKIPPED, b"mine"), ("a", b"x"))], str(tmp_path))
    assert (tmp_path / SKIPPED).read_bytes() == b"mine"
    assert (done.skipped, done.files, done.bytes) == ([], 2, 5)


def test_not_everything_that_was_left_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "MAX_SKIPPED", 2)
    done = unpack([archive((SKIPPED, b"a: x\n" * 5))], str(tmp_path))
    assert (len(done.skipped), done.skipped_count) == (2, 5)


# Beside its place


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_bytes(b"old")
    with beside(str(place)) as file:
        file.write(b"new")
        assert place.read_bytes() == b"old"
    assert place.read_bytes() == b"new"
    with pytest.raises(TypeError), beside(str(place)) as file:
        file.writelines([b"newer", "no bytes"])  # type: ignore[list-item]
    assert place.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
