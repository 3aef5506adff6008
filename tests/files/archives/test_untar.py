"""The parser of tar alone: whole, cut at each block, in pieces of each size, with every lie in a header."""

from __future__ import annotations

import io
import tarfile
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.archives.untar import MAX_EXTENDED_BYTES, Untar
from tests.files.archives.packing import END, archive, block, code, extended, member, parsed, record

LONG = "folder/" * 30 + "name" * 40


def names(data: bytes, step: int = 1 << 20) -> list[bytes]:
    return [entry.name for entry, _ in parsed(data, step)]


def some() -> bytes:
    """One of each kind, with names and contents around the size of a block."""
    return archive(
        member("folder/", kind=tarfile.DIRTYPE, mode=0o700, mtime=5),
        member("empty"),
        member("block", b"b" * 512),
        member("more", b"m" * 513, mode=0o4755, mtime=1_700_000_000),
        member("link", kind=tarfile.SYMTYPE, linkname="more"),
        member("hard", kind=tarfile.LNKTYPE, linkname="more"),
        member(LONG, b"long"),
        member("ümlaut", b"u", tarfile.REGTYPE, tarfile.PAX_FORMAT, linkname="x" * 300, mtime=1.5),
    )


class TestWhatOthersWrite:
    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_each_format_of_the_standard_library(self, form: Literal[0, 1, 2]) -> None:
        name = "dir/" * 20 + "n" * 90  # Fits into ustar with its prefix.
        data = archive(member(name, b"content", form=form, mode=0o640, mtime=1_700_000_000))
        ((entry, content),) = parsed(data)
        assert (entry.name, entry.kind, content) == (name.encode(), "file", b"content")
        assert (entry.mode, entry.mtime_ns) == (0o640, 1_700_000_000_000_000_000)

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_and_targets(self, form: Literal[0, 1, 2]) -> None:
        data = archive(member(LONG, kind=tarfile.SYMTYPE, form=form, linkname="to/" * 60 + "end"))
        ((entry, _),) = parsed(data)
        assert (entry.name, entry.target, entry.kind) == (LONG.encode(), b"to/" * 60 + b"end", "link")

    def test_times_with_fractions_and_before_1970(self) -> None:
        data = archive(
            extended(record("mtime", "1.25")) + block(b"a"),
            extended(record("mtime", "-3.5")) + block(b"b"),
            block(b"c", at_136=b"\xff" * 11 + b"\xfe"),
        )
        assert [entry.mtime_ns for entry, _ in parsed(data)] == [
            1_250_000_000,
            -3_500_000_000,
            -2_000_000_000,
        ]

    def test_a_size_in_binary(self) -> None:
        data = block(b"a", at_124=b"\x80" + bytes(10) + b"\x05") + b"12345" + bytes(507) + END
        assert parsed(data)[0][1] == b"12345"

    def test_headers_for_all_change_nothing(self) -> None:
        data = archive(extended(record("comment", "1f3a") + record("path", "evil"), b"g") + block(b"a"))
        assert names(data) == [b"a"]

    def test_a_directory_of_the_oldest_format(self) -> None:
        ((entry, _),) = parsed(archive(block(b"old/", b"\0", magic=b"")))
        assert entry.kind == "directory"

    def test_a_checksum_of_signed_bytes(self) -> None:
        head = bytearray(block("é".encode()))
        total = sum(head[:148]) + sum(head[156:]) + 256 - 256 * sum(byte > 127 for byte in head)
        head[148:156] = b"%06o\0 " % total
        assert names(archive(bytes(head))) == ["é".encode()]

    def test_directories_and_links_have_no_content_whatever_their_size(self) -> None:
        data = archive(block(b"d/", b"5", b"1000"), block(b"l", b"2", b"1000", target=b"x"), block(b"end"))
        assert names(data) == [b"d/", b"l", b"end"]

    @pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"S", b"M", b"Z"])
    def test_what_is_no_file_is_refused_alone(self, kind: bytes) -> None:
        found = parsed(archive(block(b"odd", kind), block(b"next")))
        assert [(entry.kind, bool(entry.why)) for entry, _ in found] == [("refused", True), ("file", False)]

    def test_sparse_files_of_each_format_are_refused_and_passed_over(self) -> None:
        gnu = block(b"gnu", b"S", b"10", magic=b"ustar  \0", at_482=b"\1")
        more = bytearray(512)
        more[504] = 1
        data = archive(
            gnu + bytes(more) + bytes(512) + b"12345678" + bytes(504),
            extended(record("GNU.sparse.major", "1")) + block(b"pax", b"0", b"3") + b"abc" + bytes(509),
            block(b"next"),
        )
        kinds = [entry.kind for entry, _ in parsed(data)]
        assert kinds == ["refused", "refused", "file"]
        assert [entry.kind for entry, _ in parsed(data, 100)] == kinds


class TestPieces:
    @pytest.mark.parametrize("step", [1, 7, 100, 511, 512, 513, 1024, 4000])
    def test_any_size_of_pieces_says_the_same(self, step: int) -> None:
        assert parsed(some(), step) == parsed(some())

    def test_cut_at_each_block_and_around_it(self) -> None:
        """An archive that ends before its end mark is never taken for whole, wherever it is cut."""
        data = some()
        whole = len(data) - 1024
        for at in sorted({place + around for place in range(0, whole + 1, 512) for around in (-1, 0, 1)}):
            if 0 <= at < whole + 512:
                assert code(lambda: parsed(data[:at])) == "damaged", at  # noqa: B023
        assert len(parsed(data[: whole + 512])) == 8

    def test_what_follows_the_end_is_passed_over(self) -> None:
        assert names(archive(block(b"a")) + bytes(9216) + block(b"late")) == [b"a"]

    def test_content_comes_as_it_arrives(self) -> None:
        """Nothing of a large file is kept by the parser."""
        parser = Untar()
        list(parser.feed(block(b"large", size=b"77777777777")))
        for _ in range(10):
            assert [len(event) for event in parser.feed(bytes(4096)) if isinstance(event, memoryview)] == [
                4096
            ]
        assert parser._rest == b""


class TestLies:
    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"at_124": b"8"}, "a digit that is not octal"),
            ({"at_124": b"-1"}, "below zero"),
            ({"at_124": b"\xff" * 12}, "below zero in binary"),
            ({"at_124": b"\x80" + b"\x7f" * 11}, "larger than any file"),
            ({"at_100": b"rwxrwxr"}, "a mode of letters"),
            ({"at_136": b"today"}, "a time of letters"),
            ({"at_136": b"\xc0" + b"\0" * 11}, "a time out of range"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_numbers(self, fields: dict[str, Any], name: str) -> None:
        assert code(lambda: parsed(archive(block(b"a", **fields)))) == "damaged"

    @pytest.mark.parametrize(
        "records",
        [
            b"9999 path=short\n",
            b"0 path=x\n",
            b"-9 path=x\n",
            b"11 path=xyz!",
            b"path=x\n",
            b"12 pathxxxxx\n",
            b"9" * 30 + b" path=x\n",
            record("size", "-1"),
            record("size", "1e3"),
            record("size", "9" * 30),
            record("mtime", "now"),
            record("mtime", "1.x"),
            record("mtime", ""),
        ],
    )
    def test_extended_headers(self, records: bytes) -> None:
        assert code(lambda: parsed(archive(extended(records) + block(b"a")))) == "damaged"

    def test_an_extended_header_without_end(self) -> None:
        data = block(b"x", b"x", b"%o" % (MAX_EXTENDED_BYTES + 1))
        assert code(lambda: parsed(data)) == "damaged"
        data = block(b"L", b"L", b"77777777777")
        assert code(lambda: parsed(data)) == "damaged"

    def test_only_known_records_are_kept(self) -> None:
        """A megabyte of others costs no memory behind it."""
        records = b"".join(record(f"k{number}", "v") for number in range(50_000))
        parser = Untar()
        list(parser.feed(extended(records)))
        list(parser.feed(b""))
        assert parser._next == {}
        assert names(archive(extended(records) + block(b"a"))) == [b"a"]

    def test_a_wrong_checksum(self) -> None:
        data = bytearray(archive(block(b"a")))
        data[0] ^= 1
        assert code(lambda: parsed(bytes(data))) == "damaged"

    @given(st.binary(max_size=2000))
    def test_any_bytes(self, data: bytes) -> None:
        """Nothing but the one error comes out."""
        with pytest.raises(InvalidRequest):
            parsed(b"\1" + data, 300)

    @given(st.integers(0, 7 * 512), st.integers(0, 255))
    def test_any_byte_changed(self, at: int, value: int) -> None:
        data = bytearray(some())
        data[at % len(data)] = value
        assert code(lambda: parsed(bytes(data), 777)) in ("", "damaged")


def test_the_standard_library_agrees() -> None:
    """On names, kinds and contents of everything in `some`."""
    with tarfile.open(fileobj=io.BytesIO(some())) as others:
        theirs = [
            (each.name.rstrip("/"), each.linkname if each.issym() else "", each.size) for each in others
        ]
    ours = [
        (
            entry.name.decode().rstrip("/"),
            entry.target.decode() if entry.kind == "link" else "",
            len(content),
        )
        for entry, content in parsed(some())
    ]
    # Python shows the size of what a hard link leads to.
    assert [each[:2] for each in ours] == [each[:2] for each in theirs]
