"""A workspace as one mapping: any bytes come back as they were, by bounded messages and archives."""

from __future__ import annotations

import io
import tarfile

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.client import push_pull
from mhnos_runtime.client.errors import ProtocolViolation, RequestFailed
from mhnos_runtime.client.tar_stream import SKIPPED
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.content import content_chunks
from mhnos_runtime.wire.encode import encode

FILES = st.dictionaries(st.text(min_size=1, max_size=8), st.none() | st.binary(max_size=40), max_size=6)


@given(FILES)
def test_any_bytes_are_sent_as_they_are(files: dict[str, bytes | None]) -> None:
    entries = [entry for batch in push_pull.batches(files) for entry in batch]
    assert [entry.path for entry in entries] == list(files)
    for entry in entries:
        assert (entry.kind == "directory") == (files[entry.path] is None)
        assert b"".join(content_chunks(entry.content)) == (files[entry.path] or b"")
        msgspec.json.decode(encode(entry))


def test_a_batch_is_bounded_and_a_file_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_pull, "BATCH_BYTES", 10)
    files: dict[str, bytes | None] = {
        "a": b"1234",
        "b": b"5678",
        "c": b"90",
        "d": b"x",
        "e": b"y" * 11,
        "f": None,
        "g": b"z" * 10,
    }
    batches = [[entry.path for entry in batch] for batch in push_pull.batches(files)]
    assert batches == [["a", "b", "c"], ["d", "f"], ["g"]]
    assert [path for path, content in files.items() if push_pull.is_large(content)] == ["e"]
    assert list(push_pull.batches({})) == []


def test_results_of_several_messages_add_up() -> None:
    total = m.PushResults(0, 0, [])
    failed = m.FileFailure("b", "no room")
    push_pull.add(total, m.FsyncResult("push", "success", results=m.PushResults(2, 0, [])))
    push_pull.add(total, m.FsyncResult("push", "success", results=m.PushResults(1, 1, [failed])))
    assert total == m.PushResults(3, 1, [failed])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (m.FsyncResult("push", "error", error="too many"), "too many"),
        (m.FsyncResult("push", "error"), "push failed"),
    ],
)
def test_a_refusal_of_the_whole_is_an_error(answer: m.FsyncResult, text: str) -> None:
    with pytest.raises(RequestFailed, match=text):
        push_pull.add(m.PushResults(0, 0, []), answer)


def archive(*entries: tuple[str, bytes | str | None]) -> bytes:
    """Content is a file, a text a link to it, None a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
            else:
                info.type = tarfile.DIRTYPE if what is None else tarfile.SYMTYPE
                info.linkname = what or ""
            tar.addfile(info, io.BytesIO(what if isinstance(what, bytes) else b""))
    return out.getvalue()


def test_what_an_archive_brings() -> None:
    data = archive(("./", None), ("d/", None), ("d/a", b"\xff\0"), ("b", b""), (SKIPPED, b"/x: denied\n"))
    assert push_pull.pulled([data]) == {"/d": None, "/d/a": b"\xff\0", "/b": b""}


def test_a_file_of_that_name_before_others_is_a_file() -> None:
    data = archive((SKIPPED, b"mine"), ("a", b"x"))
    assert push_pull.pulled([data]) == {
        f"/{SKIPPED}": b"mine",
        "/a": b"x",
    }


def test_a_link_to_a_file_is_that_file() -> None:
    data = archive(
        ("to-file", "d/a"),
        ("d", None),
        ("d/a", b"x"),
        ("d/up", "../to-file"),
        ("to-directory", "d"),
        ("dangling", "nowhere"),
        ("round", "round"),
        ("out", "../../etc/passwd"),
    )
    assert push_pull.pulled([data]) == {"/to-file": b"x", "/d": None, "/d/a": b"x", "/d/up": b"x"}


@pytest.mark.parametrize("data", [b"", b"x" * 600, archive(("a", b"x" * 5000))[:1500]])
def test_what_is_no_archive_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="damaged"):
        push_pull.pulled([data])
