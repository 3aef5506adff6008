"""zip archives from elsewhere: what programs write, and every lie in a directory."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError
from mhnos_runtime.files.archives import unzip as reading
from mhnos_runtime.files.archives.unpack import Unpack, Unpacked
from mhnos_runtime.files.archives.unzip import Unzip
from mhnos_runtime.files.confine import Workspace
from tests.files.archives.packing import code, why, zipped
from tests.files.archives.test_tar import listed, plant
from tests.files.archives.test_zip import packed

TEXT = b"text " * 1000


def unpack(workspace: Workspace, data: bytes, path: str = "/into") -> Unpacked:
    with Unpack(workspace, path) as unpacking:
        fd = unpacking.spare()
        try:
            os.write(fd, data)
            archive = Unzip(fd)
            list(archive.check())
            list(unpacking.take(archive.events()))
            list(unpacking.finish())
        finally:
            os.close(fd)
        return unpacking.result


def entry(name: str, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name, (2001, 9, 9, 1, 46, 40))
    made.create_system, made.external_attr, made.compress_type = 3, mode << 16, method
    return made


def add(archive: zipfile.ZipFile, name: str) -> str:
    archive.writestr(entry(name), TEXT[:50])
    return name


def one(name: str, content: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> bytes:
    return zipped(lambda archive: archive.writestr(entry(name, mode), content))


def patched(data: bytes, at: Callable[[bytes], int], value: bytes) -> bytes:
    place = at(data)
    return data[:place] + value + data[place + len(value) :]


def central(offset: int) -> Callable[[bytes], int]:
    """A place in the first entry of the directory."""
    return lambda data: data.index(b"PK\1\2") + offset


def deflated(content: bytes, kind: int = stat.S_IFREG) -> bytes:
    """An archive whose one entry, of "x", has this as what was deflated."""
    data = patched(one("f", content, kind | 0o644), central(10), b"\x08\0")
    return patched(data, central(16), struct.pack("<3I", zlib.crc32(b"x"), len(content), 1))


class TestWhatOthersWrite:
    def test_our_own_comes_back_as_it_was(self, workspace: Workspace, root: Path) -> None:
        (root / "one").mkdir()
        plant(root / "one")
        (root / "one/far").unlink()
        assert unpack(workspace, packed(root / "one"), "/two").failed == 0
        assert listed(root / "one") == listed(root / "two")

    def test_stored_and_deflated_modes_times_and_links(self, workspace: Workspace, root: Path) -> None:
        def fill(archive: zipfile.ZipFile) -> None:
            archive.writestr(entry("d/", stat.S_IFDIR | 0o750), b"")
            archive.writestr(entry("d/stored", stat.S_IFREG | 0o4755), TEXT)
            archive.writestr(entry("d/deflated", method=zipfile.ZIP_DEFLATED), TEXT)
            archive.writestr(entry("d/link", stat.S_IFLNK | 0o777), b"stored")

        result = unpack(workspace, zipped(fill))
        assert (result.written, result.failed, result.bytes) == (4, 0, 2 * len(TEXT))
        into = root / "into/d"
        assert (into / "deflated").read_bytes() == (into / "link").read_bytes() == TEXT
        assert stat.S_IMODE((into / "stored").stat().st_mode) == 0o755
        assert (into / "stored").stat().st_mtime == 1_000_000_000
        assert stat.S_IMODE(into.stat().st_mode) == 0o750

    def test_a_stream_with_sizes_behind_the_content(self, workspace: Workspace, root: Path) -> None:
        class Pipe(io.RawIOBase):
            data = b""

            def writable(self) -> bool:
                return True

            def write(self, data: object) -> int:
                Pipe.data += bytes(data)  # type: ignore[call-overload]
                return len(bytes(data))  # type: ignore[call-overload]

        with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("f", TEXT)
        assert unpack(workspace, Pipe.data).failed == 0
        assert (root / "into/f").read_bytes() == TEXT

    def test_zip64_and_what_precedes_an_archive(self, workspace: Workspace, root: Path) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive, archive.open("f", "w", force_zip64=True) as file:
            file.write(TEXT)
        data = out.getvalue()
        assert unpack(workspace, b"#!/bin/sh\n" + data + b"", "/self").failed == 0
        many = zipped(lambda archive: [add(archive, str(number)) for number in range(66_000)])
        with Unpack(workspace, "/into") as unpacking:
            fd = unpacking.spare()
            os.write(fd, many)
            found = Unzip(fd)
            assert len(list(found.check())) == 66_000 // 500
            assert sum(1 for _ in found.events()) == 3 * 66_000
            os.close(fd)

    def test_names_of_old_programs(self, workspace: Workspace, root: Path) -> None:
        plain = one("aaaaaa")
        for raw, name in (("ümlau".encode(), "ümlau"), (b"\x81mlaut", "ümlaut")):
            assert unpack(workspace, plain.replace(b"aaaaaa", raw), f"/{len(name)}").failed == 0
            assert os.listdir(root / str(len(name))) == [name]

    def test_of_systems_that_know_no_modes(self, workspace: Workspace, root: Path) -> None:
        data = patched(one("d/f", mode=0), central(5), b"\0")
        assert unpack(workspace, data).failed == 0
        assert stat.S_IMODE((root / "into/d/f").stat().st_mode) == 0o644

    def test_a_time_that_is_none(self, workspace: Workspace, root: Path) -> None:
        assert unpack(workspace, patched(one("f"), central(12), b"\0\0\0\0")).failed == 0

    def test_nothing_at_all(self, workspace: Workspace) -> None:
        assert unpack(workspace, zipped(lambda _: None)).written == 0


class TestNoWayOut:
    @pytest.mark.parametrize(
        "name", ["/etc/x", "../x", "a/../../ws-secret/canary", "..", "n" * 256, "d/" * 300 + "x", "a/..", "."]
    )
    @pytest.mark.parametrize("mode", [stat.S_IFREG, stat.S_IFLNK], ids=["file", "link"])
    def test_names(self, workspace: Workspace, root: Path, name: str, mode: int) -> None:
        result = unpack(workspace, one(name, mode=mode | 0o777))
        assert (result.written, result.failed) == (0, 1)
        assert os.listdir(root / "into") == []

    def test_a_name_that_says_something_else_in_front_of_the_content(
        self, workspace: Workspace, root: Path
    ) -> None:
        data = one("good")
        assert unpack(workspace, data.replace(b"good", b"../x", 1)).failed == 0
        assert os.listdir(root / "into") == ["good"]

    @pytest.mark.parametrize("target", [b"/etc", b"../..", b"", b"x" * 5000, b"a/../../.."])
    def test_links(self, workspace: Workspace, root: Path, target: bytes) -> None:
        result = unpack(workspace, one("way", target, stat.S_IFLNK | 0o777))
        assert (result.written, result.failed) == (0, 1)
        assert os.listdir(root / "into") == []

    def test_through_a_link_of_its_own(self, workspace: Workspace, root: Path) -> None:
        def fill(archive: zipfile.ZipFile) -> None:
            archive.writestr(entry("a/b/"), b"")
            archive.writestr(entry("a/b/up", stat.S_IFLNK | 0o777), b"../..")
            archive.writestr(entry("out", stat.S_IFLNK | 0o777), b"a/b/up/../../ws-secret")
            archive.writestr(entry("out/canary"), b"x")

        assert "out/canary" in why(unpack(workspace, zipped(fill)))

    @pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
    def test_what_is_no_file(self, workspace: Workspace, root: Path, mode: int) -> None:
        assert unpack(workspace, one("odd", mode=mode | 0o644)).failed == 1
        assert os.listdir(root / "into") == []


class TestLies:
    @pytest.mark.parametrize(
        ("offset", "value"),
        [
            (16, b"\0\0\0\0"),
            (24, b"\1\0\0\0"),
            (24, b"\xff\xff\xff\x0f"),
            (20, b"\2\0\0\0"),
            (42, b"\x07\0\0\0"),
        ],
        ids=["checksum", "longer", "shorter", "cut", "elsewhere"],
    )
    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_about_one_entry_fail_it_alone(
        self, workspace: Workspace, root: Path, offset: int, value: bytes, method: int
    ) -> None:
        def fill(archive: zipfile.ZipFile) -> None:
            archive.writestr(entry("lie", method=method), b"12345678" * 9)
            archive.writestr(entry("next"), b"x")

        result = unpack(workspace, patched(zipped(fill), central(offset), value))
        assert (result.written, result.failed) == (1, 1)
        assert os.listdir(root / "into") == ["next"]

    def test_what_is_encrypted_or_packed_otherwise(self, workspace: Workspace) -> None:
        assert "encrypted" in why(unpack(workspace, patched(one("f"), central(8), b"\1\0")))["f"]
        assert "not known" in why(unpack(workspace, patched(one("f"), central(10), b"\x0e\0")))["f"]

    def test_content_beyond_its_place(self, workspace: Workspace) -> None:
        data = patched(one("f"), central(20), struct.pack("<2L", 60, 60))
        assert unpack(workspace, data).failed == 1

    @pytest.mark.parametrize("cut", range(0, 120, 7))
    def test_cut_anywhere(self, workspace: Workspace, root: Path, cut: int) -> None:
        data = one("f", b"12345678")
        assert code(lambda: unpack(workspace, data[: max(len(data) - 1 - cut, 0)])) == "damaged"
        assert os.listdir(root / "into") == []

    @pytest.mark.parametrize(
        ("offset", "value"),
        [
            (4, b"\1\0"),
            (12, b"\xff\xff\xff\x7f"),
            (16, b"\xff\xff\xff\x7f"),
            (10, b"\5\0"),
            (10, b"\xff\xff"),
        ],
        ids=["disk", "length", "offset", "count", "zip64"],
    )
    def test_about_the_whole_refuse_it(self, workspace: Workspace, offset: int, value: bytes) -> None:
        data = patched(one("f"), lambda data: data.index(b"PK\5\6") + offset, value)
        assert code(lambda: unpack(workspace, data)) == "damaged"

    def test_a_directory_that_is_none(self, workspace: Workspace) -> None:
        assert code(lambda: unpack(workspace, patched(one("f"), central(0), b"XX"))) == "damaged"
        data = patched(one("f"), lambda data: data.index(b"PK\5\6") + 8, b"\0\0\0\0")
        assert code(lambda: unpack(workspace, data)) == "damaged"

    def test_a_deflated_link_that_is_damaged(self, workspace: Workspace) -> None:
        data = zipped(
            lambda archive: archive.writestr(
                entry("way", stat.S_IFLNK | 0o777, zipfile.ZIP_DEFLATED), b"target" * 50
            )
        )
        assert unpack(workspace, patched(data, lambda _: 40, b"\xff\xff\xff\xff")).failed == 1

    @pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFLNK])
    def test_content_goes_no_further_than_its_end(self, workspace: Workspace, kind: int) -> None:
        """Gigabytes behind it were read in one step, which kept a thread."""
        assert unpack(workspace, deflated(zlib.compress(b"x", wbits=-15) + bytes(1 << 20), kind)).failed == 1

    def test_content_of_nothing_is_inflated_in_steps(self, workspace: Workspace) -> None:
        data = deflated(b"\0\0\0\xff\xff" * (16 << 17) + zlib.compress(b"x", wbits=-15))
        with Unpack(workspace, "/into") as unpacking:
            fd = unpacking.spare()
            try:
                os.write(fd, data)
                steps = len(list(unpacking.take(Unzip(fd).events())))
            finally:
                os.close(fd)
        assert unpacking.result.written == 1
        assert steps >= len(data) / (reading.PIECE_BYTES * 10)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
    @given(at=st.integers(0, 400), value=st.integers(0, 255))
    def test_any_byte_changed(self, workspace: Workspace, at: int, value: int) -> None:
        data = bytearray(zipped(lambda archive: [add(archive, name) for name in "ab"]))
        data[at % len(data)] = value
        assert code(lambda: unpack(workspace, bytes(data))) in ("", "damaged", "too-large", "disk-full")


class TestBombs:
    def test_a_ratio_beyond_everything(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "FREE_BYTES", 1 << 20)
        data = zipped(lambda archive: archive.writestr(entry("zeros", method=8), bytes(5 << 20)))
        with pytest.raises(LimitReached, match="bytes of content in"):
            unpack(workspace, data)

    def test_entries_that_share_their_content(self, workspace: Workspace) -> None:
        """As David Fifield's bomb (2019): a kernel of bytes that all entries unpack."""
        data = one("f", b"x" * 2000)
        start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
        record = data[start:end]
        tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, 3 * len(record), start, 0)
        with pytest.raises(LimitReached, match="share"):
            unpack(workspace, data[:start] + record * 3 + tail)

    def test_more_than_it_says(self, workspace: Workspace, root: Path) -> None:
        """The directory promises one byte; the content goes on for as long as it likes."""
        data = zipped(lambda archive: archive.writestr(entry("f", method=8), bytes(8 << 20)))
        result = unpack(workspace, patched(data, central(24), b"\1\0\0\0"))
        assert why(result)["f"].startswith("Its content is not what the archive says")
        assert os.listdir(root / "into") == []

    def test_more_than_the_disk_has(self, workspace: Workspace) -> None:
        with Unpack(workspace, "/into") as unpacking, pytest.raises(LimitReached) as caught:
            unpacking.require_space(1 << 60)
        assert caught.value.code == "disk-full"


def test_what_is_no_archive(workspace: Workspace) -> None:
    for data in (b"", b"PK", b"x" * 100_000, b"PK\5\6" + bytes(10)):
        with pytest.raises(InvalidRequest):
            unpack(workspace, data)
    assert issubclass(InvalidRequest, MhnosError)
