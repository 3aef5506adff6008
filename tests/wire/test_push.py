"""A push that is read as it arrives is what the same message is when it is there as a whole, cut anywhere."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from mhnos_runtime.wire import push
from mhnos_runtime.wire.content import content_chunks
from mhnos_runtime.wire.messages import Fsync
from mhnos_runtime.wire.parse import WireError, parse_request
from mhnos_runtime.wire.push import FileBegin, FileEnd, PushParser, check_head

Files = list[tuple[str, str, bytes, float | None]]

names = st.text(st.characters(exclude_categories=()), max_size=8)
texts = st.text(st.characters(exclude_categories=()), max_size=20)
contents = st.one_of(st.lists(st.integers(0, 255), max_size=30), texts, st.none())
times = st.one_of(st.none(), st.integers(0, 2**50), st.floats(0, 1e15))
kinds = st.sampled_from(["file", "directory"])
ORDER = ("path", "kind", "content", "mtime")
entries = st.fixed_dictionaries(
    {"path": names}, optional={"kind": kinds, "content": contents, "mtime": times}
).map(lambda entry: {name: entry[name] for name in ORDER if name in entry})


def document(files: list[object], **more: object) -> bytes:
    return json.dumps({"type": "fsync", "operation": "push", "files": files, **more}).encode()


def in_pieces(data: bytes, size: int) -> tuple[PushParser, Files]:
    parser = PushParser()
    found: Files = []
    path, kind, content = "", "", b""
    for start in range(0, len(data), size):
        for event in parser.feed(data[start : start + size], start + size >= len(data)):
            if isinstance(event, FileBegin):
                (path, kind), content = event, b""
            elif isinstance(event, FileEnd):
                found.append((path, event.error or kind, content, event.mtime_ms))
            else:
                content += event
    return parser, found


def whole(data: bytes) -> Files:
    request = parse_request(data)
    assert isinstance(request, Fsync)
    return [
        (file.path, file.kind, b"".join(content_chunks(file.content)), file.mtime) for file in request.files
    ]


@given(st.lists(entries, max_size=4), st.integers(1, 60), st.integers(0, 3))
def test_cut_anywhere(files: list[object], size: int, indent: int) -> None:
    data = document(files, id=[1, {"a": "]"}], other={"files": "}"})
    data = json.dumps(json.loads(data), indent=indent).encode()
    parser, found = in_pieces(data, size)
    assert found == whole(data)
    assert json.loads(bytes(parser.request_id or b"")) == [1, {"a": "]"}]


@given(st.binary(max_size=500), st.integers(1, 80))
def test_windows_of_numbers_and_text_join(data: bytes, window: int) -> None:
    text = data.decode("latin-1") + '\ud83d\ude00\\"'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push, "WINDOW_BYTES", window + 20)
        message = document([{"path": "n", "content": list(data)}, {"path": "t", "content": text}])
        _, found = in_pieces(message, 7)
    assert [content for _, _, content, _ in found] == [
        data,
        text.encode("utf-16", "surrogatepass").decode("utf-16").encode(),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "[1,256,3]",
        "[1,,2]",
        "[1,]",
        "[1.5]",
        "[[1],2]",
        '["]"]',
        '{"0":1}',
        "5",
        "true",
        '"\\\\x"',
        '"\\\\ud8"',
    ],
)
def test_wrong_content_fails_alone(content: str) -> None:
    content = content.replace("\\\\", "\\")
    files = f'{{"path":"a","content":{content}}},{{"path":"b","content":"x"}}'
    data = f'{{"type":"fsync","operation":"push","files":[{files}]}}'
    for size in range(1, len(data)):
        _, found = in_pieces(data.encode(), size)
        assert found[0][1].startswith("content: expected")
        assert found[1] == ("b", "file", b"x", None)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b" ", "invalid-message"),
        (b"[]", "invalid-message"),
        (document([])[:-1], "invalid-message"),
        (document([]) + b"x", "invalid-message"),
        (b'{"type":"fsync","files":[]}', "invalid-argument"),
        (b'{"files":[],"type":"fsync","operation":"push"}', "invalid-argument"),
        (document([{"path": 5}]), "invalid-argument"),
        (document([{}]), "invalid-argument"),
        (document([{"content": [1], "path": "a"}]), "invalid-argument"),
        (document([{"path": "a", "content": [1], "kind": "directory"}]), "invalid-argument"),
        (document([{"path": "a", "mtime": "x"}]), "invalid-argument"),
        (document([{"path": "a" * 40_000}]), "too-large"),
        (document([{"path": "a", "content": [[]] * 20_000}]), "too-large"),
        (document([5]), "invalid-message"),
        (document([], id="x" * 5000), "too-large"),
        (b'{"type":"fsync" "operation":"push"}', "invalid-message"),
        (b'{"type":"fsync","operation":"push","x":}', "invalid-message"),
        (b'{"type":"fsync","operation":"push","files":[{"path":"a"},]}', "invalid-message"),
    ],
)  # fmt: skip
def test_what_is_wrong_as_a_whole(data: bytes, code: str) -> None:
    for size in (1, 7, 100_000):
        with pytest.raises(WireError) as caught:
            in_pieces(data, size)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "head",
    [
        b'{"type":"fsync","oper',
        b' { "id" : {"type":"x"} , "type" : "fsync"',
        b'{"a":"\\"","type":"fs\\u0079nc","files":[{"path":"x","content":[1,2',
    ],
)
def test_a_head_that_may_be_large(head: bytes) -> None:
    check_head(head)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"fsync",
        b'{"a":{"type":"fsync"},"b":"',
        b'{"a":"\\"type\\":\\"fsync\\"',
        b'{"type":"spawn","type":',
    ],
)
def test_a_head_that_may_not(head: bytes) -> None:
    with pytest.raises(WireError) as caught:
        check_head(head)
    assert caught.value.code == "too-large"
    assert caught.value.request_id is UNSET


MIB = 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":[' + b"1," * (MIB // 2 - 10) + b"1]}",
        b'{"type":{' + b",".join(b'"%06x":0' % n for n in range(MIB // 12)) + b"}}",
        b'{"type":"write","pid":1,"data":"' + b"\\ud800" * (MIB // 6 - 10) + b'"}',
        b'{"type":"write","pid":1,"data":"' + b"\\n" * (MIB // 2 - 50) + b'\\ud800"}',
        b'{"type":"spawn","args":[' + b'"\\ud800",' * (MIB // 9 - 10) + b'""]}',
    ],
    ids=lambda data: data[:30].decode(),
)
def test_no_message_takes_long_to_parse(data: bytes) -> None:
    """The first one took a second, most of it to show a list of half a million numbers as a text."""
    taken = []
    for _ in range(3):
        begin = time.thread_time()
        with suppress(WireError):
            parse_request(data)
        taken.append(time.thread_time() - begin)
    assert min(taken) < 0.1
