"""Uploads that are resumed: over cuts, by another program, and what a server may say of them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from mhnos_runtime.client import attempts
from mhnos_runtime.client.contents import Contents
from mhnos_runtime.client.errors import (
    ConnectionLost,
    ProtocolViolation,
    RequestFailed,
)
from tests.client.content_server import ContentServer, version
from tests.client.cutting import CuttingProxy
from tests.client.peer import Peer, Scripted, answered, target

pytestmark = pytest.mark.usefixtures("impatient")

LARGE = os.urandom(3_000_001)
CONTENTS = [b"", b"x", b"\r\n0\r\n\r\n", LARGE]


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_uploaded_is_downloaded_again(server: ContentServer, content: bytes) -> None:
    told: list[int] = []
    with Contents(server.target) as contents:
        file = contents.upload(
            "/a", io.BytesIO(content), size=len(content), mode=0o600, mtime_ms=5, progress=told.append
        )
    assert server.files["/a"] == content
    assert (file.path, file.size, file.mode, file.mtime) == ("/a", len(content), 0o600, 5)
    assert file.version == version(content)
    assert told[-1:] == ([len(content)] if content else [0])
    assert server.connections == 1


@pytest.mark.parametrize("resets", [True, False])
def test_an_upload_goes_on_where_it_was_cut(server: ContentServer, resets: bool) -> None:
    with CuttingProxy(server.target, [250_000] * 10, resets=resets) as proxy:
        with Contents(proxy.target) as contents:
            file = contents.upload("/a", io.BytesIO(LARGE), size=len(LARGE))
        assert proxy.cuts == 10
    assert server.files["/a"] == LARGE
    assert file.version == version(LARGE)


def test_another_program_goes_on_with_an_upload(server: ContentServer) -> None:
    names: list[str] = []
    with (
        CuttingProxy(server.target, [300_000] + [1] * 20) as proxy,
        Contents(proxy.target) as contents,
        pytest.raises(ConnectionLost),
    ):
        contents.upload("/a", io.BytesIO(LARGE), size=len(LARGE), begun=names.append)
    before = sum(len(data) for _, _, data in server.uploads.values())
    assert 0 < before < 300_000
    with Contents(server.target) as contents:
        contents.upload("/a", io.BytesIO(LARGE), size=len(LARGE), resume=names[0], begun=names.append)
        assert server.files["/a"] == LARGE
        assert (len(server.uploads), len(names)) == (1, 1)
        with pytest.raises(RequestFailed, match="404") as caught:
            contents.upload("/a", io.BytesIO(LARGE), size=len(LARGE), resume="gone")
        assert caught.value.code == "not-found"
        with pytest.raises(ProtocolViolation, match="no name of an upload"):
            contents.upload("/a", io.BytesIO(LARGE), size=len(LARGE), resume="../files/a")


@pytest.mark.parametrize("offset", ["", "-1", "9", "x", "9" * 5000])
def test_an_offset_that_can_be_none(offset: str) -> None:
    created = b"HTTP/1.1 201 Created\r\nLocation: /x/id\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    lie = f"HTTP/1.1 204 No\r\nUpload-Offset: {offset}\r\n\r\n".encode()

    def patched(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer._take(1)
        peer.send(lie)

    def create(peer: Peer) -> None:
        peer.head()
        peer.send(created)

    with (
        Scripted(create, patched) as server,
        Contents(target(server)) as contents,
        pytest.raises(ProtocolViolation, match="offset"),
    ):
        contents.upload("/a", io.BytesIO(b"x"), size=1)


@pytest.mark.parametrize("place", ["", "/", "http://x/?evil", "/v1/files/a%2fb", "/x/" + "a" * 300])
def test_an_upload_without_a_name(place: str) -> None:
    created = f"HTTP/1.1 201 Created\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    with (
        answered(created) as server,
        Contents(target(server)) as contents,
        pytest.raises(ProtocolViolation, match="no name of an upload"),
    ):
        contents.upload("/a", io.BytesIO(b"x"), size=1)


def patched(offset: int, size: int) -> Callable[[Peer], None]:
    """Takes `size` bytes, and says how far it has come."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer._take(size)
        peer.send(b"HTTP/1.1 204 No\r\nUpload-Offset: %d\r\nConnection: close\r\n\r\n" % offset)

    return script


def told(offset: int) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        assert peer.head().startswith("HEAD /v1/uploads/id ")
        peer.send(b"HTTP/1.1 200 OK\r\nUpload-Offset: %d\r\nConnection: close\r\n\r\n" % offset)

    return script


def created(peer: Peer) -> None:
    peer.head()
    peer.send(b"HTTP/1.1 201 C\r\nLocation: id\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def described(peer: Peer) -> None:
    peer.head()
    peer.send(b'HTTP/1.1 200 OK\r\nETag: "%b"\r\nContent-Length: 2\r\n\r\n' % (b"0" * 24))


def test_a_server_that_takes_a_part_gets_the_rest() -> None:
    scripts = (created, patched(1, 2), told(1), patched(2, 1), described)
    with Scripted(*scripts) as server, Contents(target(server)) as contents:
        assert contents.upload("/a", io.BytesIO(b"ab"), size=2).size == 2


def test_a_server_that_takes_nothing_is_not_asked_for_ever() -> None:
    rounds = [script for _ in range(attempts.MAX_ATTEMPTS) for script in (told(0), patched(0, 2))]
    with (
        Scripted(created, *rounds[1:]) as server,
        Contents(target(server)) as contents,
        pytest.raises(ConnectionLost, match="taken 0 of 2"),
    ):
        contents.upload("/a", io.BytesIO(b"ab"), size=2)
