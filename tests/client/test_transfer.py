"""Files as messages: any bytes come back as they were, in messages of a bounded size."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.client import transfer
from mhnos_runtime.client.errors import ProtocolViolation, RequestFailed
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.content import content_chunks
from mhnos_runtime.wire.encode import encode

FILES = st.dictionaries(st.text(min_size=1, max_size=8), st.none() | st.binary(max_size=40), max_size=6)


@given(FILES)
def test_any_bytes_come_back(files: dict[str, bytes | None]) -> None:
    entries = [entry for batch in transfer.batches(files) for entry in batch]
    assert transfer.contents(m.FsyncResult("pull", "success", files=entries)) == files
    for entry in entries:
        assert b"".join(content_chunks(entry.content)) == (files[entry.path] or b"")
        msgspec.json.decode(encode(entry))


def test_a_batch_is_bounded_and_a_file_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH_BYTES", 10)
    files: dict[str, bytes | None] = {
        "a": b"1234",
        "b": b"5678",
        "c": b"90",
        "d": b"x",
        "e": b"y" * 25,
        "f": None,
    }
    batches = [[entry.path for entry in batch] for batch in transfer.batches(files)]
    assert batches == [["a", "b", "c"], ["d"], ["e"], ["f"]]
    assert list(transfer.batches({})) == []


def test_results_of_several_messages_add_up() -> None:
    total = m.PushResults(0, 0, [])
    failed = m.FileFailure("b", "no room")
    transfer.add(total, m.FsyncResult("push", "success", results=m.PushResults(2, 0, [])))
    transfer.add(total, m.FsyncResult("push", "success", results=m.PushResults(1, 1, [failed])))
    assert total == m.PushResults(3, 1, [failed])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (m.FsyncResult("pull", "error", error="more than 32 MiB"), "more than 32 MiB"),
        (m.FsyncResult("pull", "error"), "pull failed"),
    ],
)
def test_a_refusal_of_the_whole_is_an_error(answer: m.FsyncResult, text: str) -> None:
    with pytest.raises(RequestFailed, match=text):
        transfer.contents(answer)
    with pytest.raises(RequestFailed, match=text):
        transfer.add(m.PushResults(0, 0, []), answer)


@pytest.mark.parametrize("content", [b"[256]", b"[-1]", b'["a"]', b"{}", b"1.5", b'[1,"x"]'])
def test_content_that_is_none_is_a_violation(content: bytes) -> None:
    answer = m.FsyncResult("pull", "success", files=[m.FileEntry("a", content=msgspec.Raw(content))])
    with pytest.raises(ProtocolViolation, match="a: content: expected an array"):
        transfer.contents(answer)


def test_a_file_without_content_is_empty() -> None:
    assert transfer.contents(m.FsyncResult("pull", "success", files=[m.FileEntry("a")])) == {"a": b""}
