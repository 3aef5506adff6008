"""Headers of tus, one by one: what each says, and what is none. The rest is tested through a server."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.draft import Condition
from mhnos_runtime.server.api import tus_headers as tus

VERSION = "0123456789abcdef01234567"


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("007", 7), (str(2**53 - 1), 2**53 - 1)])
def test_numbers(text: str, value: int) -> None:
    assert tus.number({"Upload-Offset": text}, "Upload-Offset") == value
    assert tus.required({"Upload-Offset": text}, "Upload-Offset") == value


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1 ", "1.0", "0x1", "\u0661", str(2**53), "9" * 500])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(InvalidRequest, match="whole number"):
        tus.number({"Upload-Offset": text}, "Upload-Offset")


def test_no_number() -> None:
    assert tus.number({}, "Upload-Offset") is None
    with pytest.raises(InvalidRequest, match="needs the header"):
        tus.required({}, "Upload-Offset")


def test_metadata() -> None:
    text = f"path {b64('/ä')},alone, odd!.name {b64('')}"
    assert tus.metadata(text) == {"path": "/ä", "alone": "", "odd!.name": ""}
    assert tus.metadata("") == {}
    assert tus.metadata(f"path {b64(bytes([0xFF]))}") == {"path": "\udcff"}


@pytest.mark.parametrize("text", [",", "a ,", "a YQ==,a YQ==", "a Y", "a YQ== b", "\x01 YQ==", "A" * 8191])
def test_what_is_no_metadata(text: str) -> None:
    with pytest.raises(InvalidRequest):
        tus.metadata(text)


@given(st.text(max_size=200))
def test_any_metadata(text: str) -> None:
    try:
        found = tus.metadata(text)
    except InvalidRequest:
        return
    assert all(name and name in text for name in found)


def test_conditions() -> None:
    assert tus.condition(None, None) == Condition()
    assert tus.condition(None, "*") == Condition(absent=True)
    assert tus.condition("*", None) == Condition(exists=True)
    for text in (VERSION, f'"{VERSION}"'):
        assert tus.condition(text, None) == Condition(frozenset({VERSION}))
    for match, none in (("x", None), (None, "x"), ("W/" + VERSION, None)):
        with pytest.raises(InvalidRequest):
            tus.condition(match, none)


def test_checksums() -> None:
    found = tus.checksum({"Upload-Checksum": f"sha1 {b64(b'x')}"})
    assert found is not None
    assert found.expected == b"x"
    assert tus.checksum({}) is None
    for text in ("", "md5 eA==", "sha1 *", "SHA1 eA=="):
        with pytest.raises(InvalidRequest):
            tus.checksum({"Upload-Checksum": text})


def test_a_creation() -> None:
    text = f"path {b64('/a')},mode {b64('0600')},mtime {b64('-5')},ifNoneMatch {b64('*')}"
    found = tus.wanted({"Upload-Length": "3", "Upload-Metadata": text})
    assert (found.path, found.length, found.mode, found.mtime_ms) == ("/a", 3, 0o600, -5)
    assert found.condition == Condition(absent=True)
    assert found.metadata == text
    deferred = tus.wanted({"Upload-Defer-Length": "1", "Upload-Metadata": f"path {b64('/a')}"})
    assert deferred.length is None
