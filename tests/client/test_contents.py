"""The content of files both ways: what is sent and what comes back, whole or not at all, over connections
that are cut."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from mhnos_runtime.client import attempts
from mhnos_runtime.client.contents import ArchiveWritten, Contents
from mhnos_runtime.client.errors import (
    ClientError,
    Conflict,
    ConnectionLost,
    RequestFailed,
    SourceChanged,
    Unauthorized,
)
from tests.client.content_server import ContentServer, version
from tests.client.cutting import CuttingProxy
from tests.client.peer import Peer, Scripted, target

pytestmark = pytest.mark.usefixtures("impatient")

LARGE = os.urandom(3_000_001)
CONTENTS = [b"", b"x", b"\r\n0\r\n\r\n", LARGE]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("sized", [True, False])
def test_what_is_written_is_read_again(server: ContentServer, content: bytes, sized: bool) -> None:
    path = "/a b/ü%2e?#&.bin"
    pieces = [content[:7], b"", content[7:]]
    with Contents(server.target) as contents:
        size = len(content) if sized else None
        file = contents.write(path, pieces, size=size, mode=0o750, mtime_ms=1_700_000_000_123)
        with contents.read(path) as read:
            assert b"".join(read) == content
        sink = io.BytesIO()
        assert contents.download(path, sink) == file == read.file
    assert sink.getvalue() == content
    assert (file.path, file.size, file.mode, file.mtime) == (path, len(content), 0o750, 1_700_000_000_123)
    assert (read.size, read.version) == (len(content), version(content))
    assert (read.mode, read.mtime_ms) == (0o750, 1_700_000_000_123)
    assert server.connections == 1


def test_it_begins_where_it_is_told(server: ContentServer) -> None:
    server.files["/a"] = b"0123456789"
    with Contents(server.target) as contents, contents.read("a", start=7) as read:
        assert (b"".join(read), read.size) == (b"789", 10)
        assert list(read) == []


def test_a_download_goes_on_from_an_earlier_time(server: ContentServer) -> None:
    server.files["/a"] = b"0123456789"
    sink, told = io.BytesIO(), list[int]()
    with Contents(server.target) as contents:
        contents.download("/a", sink, start=7, version=version(b"0123456789"), progress=told.append)
        with pytest.raises(Conflict):
            contents.download("/a", sink, start=7, version=version(b"other"))
    assert (sink.getvalue(), told) == (b"789", [10])


def test_an_archive_goes_both_ways(server: ContentServer) -> None:
    with Contents(server.target) as contents:
        assert contents.write_archive("/d", [LARGE[:1000], LARGE[1000:]]) == ArchiveWritten(1, len(LARGE))
        with contents.read_archive("/d") as archive:
            assert (archive.size, archive.version, archive.mode, archive.mtime_ms) == (None, None, None, None)
            assert b"".join(archive) == LARGE
    assert server.lines == ["PUT /v1/files/d?archive=tar", "GET /v1/files/d?archive=tar"]
    assert server.connections == 1


def test_a_runtime_below_a_path(impatient: None) -> None:
    with ContentServer("/user/ann") as server, Contents(server.target) as contents:
        contents.upload("/a", io.BytesIO(b"x"), size=1)
        contents.write("b", [b"y"])
        assert server.files == {"/a": b"x", "/b": b"y"}
    assert all(" /user/ann/v1/" in line for line in server.lines)


# Conditions and refusals


def test_what_stands_there_decides(server: ContentServer) -> None:
    server.files["/a"] = b"old"
    with Contents(server.target) as contents:
        for wrong in (
            lambda: contents.write("/a", [b"new"], absent=True),
            lambda: contents.write("/a", [b"new"], version="0" * 24),
            lambda: contents.read("/a", version="0" * 24),
        ):
            with pytest.raises(Conflict) as caught:
                wrong()
            assert caught.value.hint == "look"
        contents.write("/a", [b"new"], version=version(b"old"))
        contents.write("/b", [b"new"], absent=True)
    assert server.files == {"/a": b"new", "/b": b"new"}
    with Contents(server.target) as contents, pytest.raises(ValueError, match="no version"):
        contents.write("/a", [b"new"], version='"')


def test_a_refused_source_is_not_read(server: ContentServer) -> None:
    """A server that refuses before the body is asked for gets nothing of it."""
    server.files["/a"] = b"old"
    taken = []

    def source() -> Iterator[bytes]:
        for number in range(1000):
            taken.append(number)
            yield bytes(1 << 20)

    with Contents(server.target) as contents, pytest.raises(Conflict):
        contents.write("/a", source(), absent=True)
    assert len(taken) <= 1


def test_a_refusal_in_the_middle_ends_the_sending() -> None:
    """The server neither reads on nor closes; what it says is heard although the sender is stuck."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert peer.connection.recv(10)
        body = b'{"error":"No space left","code":"disk-full"}'
        peer.send(b"HTTP/1.1 507 Full\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        over.wait(20)

    with Scripted(script) as server, Contents(target(server)) as contents:
        with pytest.raises(RequestFailed, match="No space left") as caught:
            contents.write("/a", iter(lambda: bytes(1 << 18), None))
        assert caught.value.code == "disk-full"
        over.set()


@pytest.mark.parametrize("method", ["read", "write", "upload"])
def test_a_wrong_token(server: ContentServer, method: str) -> None:
    with Contents(server.target._replace(token="wrong")) as contents:
        work: dict[str, Callable[[], object]] = {
            "read": lambda: contents.read("/a"),
            "write": lambda: contents.write("/a", [b"x"]),
            "upload": lambda: contents.upload("/a", io.BytesIO(b"x"), size=1),
        }
        with pytest.raises(Unauthorized):
            work[method]()
    assert server.files == {}


def test_a_connection_is_used_again_after_a_refusal(server: ContentServer) -> None:
    with Contents(server.target) as contents:
        for _ in range(3):
            with pytest.raises(RequestFailed, match="No such file") as caught:
                contents.read("/none")
            assert caught.value.code == "not-found"
    assert server.connections == 1


def test_a_connection_that_has_ended_meanwhile_is_dialled_again(server: ContentServer) -> None:
    server.files["/a"] = b"x"
    with CuttingProxy(server.target, [], resets=False) as proxy, Contents(proxy.target) as contents:
        with contents.read("/a") as read:
            assert list(read) == [b"x"]
        proxy.hang_up()
        contents.write("/b", [b"y"])
        assert proxy.connections == 2
    assert server.files["/b"] == b"y"


def test_who_stops_reading_leaves_the_next_request_a_connection(server: ContentServer) -> None:
    server.files.update({"/a": LARGE, "/b": b"b"})
    with Contents(server.target) as contents:
        with contents.read("/a") as read:
            next(iter(read))
            with contents.read("/b") as other:
                assert list(other) == [b"b"]
        with contents.read("/b") as other:
            assert list(other) == [b"b"]
    assert server.connections == 2


# Sources


@pytest.mark.parametrize(
    ("method", "size"),
    [*(("write", size) for size in (0, 1, 4, 6, 100)), ("upload", 6), ("upload", 100)],
)
def test_a_source_of_another_size_writes_nothing(server: ContentServer, size: int, method: str) -> None:
    with Contents(server.target) as contents:
        work: dict[str, Callable[[], object]] = {
            "write": lambda: contents.write("/a", [b"01", b"234"], size=size),
            "upload": lambda: contents.upload("/a", io.BytesIO(b"01234"), size=size),
        }
        with pytest.raises(SourceChanged):
            work[method]()
        contents.write("/b", [b"after it"])
    assert server.files == {"/b": b"after it"}
    assert server.uploads == {}


@pytest.mark.parametrize("size", [0, 1, 4])
def test_of_a_file_that_grows_what_it_was_at_the_start_is_sent(server: ContentServer, size: int) -> None:
    """No log that somebody writes could be copied at all."""
    with Contents(server.target) as contents:
        contents.upload("/a", io.BytesIO(b"01234"), size=size)
    assert server.files == {"/a": b"01234"[:size]}


def test_an_error_of_the_source_is_its_own(server: ContentServer) -> None:
    def source() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise OSError(5, "Input/output error")

    with Contents(server.target) as contents:
        with pytest.raises(OSError, match="Input/output") as caught:
            contents.write("/a", source())
        assert not isinstance(caught.value, ClientError)
        contents.write("/b", [b"x"])
    assert server.files == {"/b": b"x"}


# Connections that are cut


@pytest.mark.parametrize("resets", [True, False])
def test_a_download_goes_on_where_it_was_cut(server: ContentServer, resets: bool) -> None:
    server.files["/a"] = LARGE
    told: list[int] = []
    sink = io.BytesIO()
    with CuttingProxy(server.target, [150_000] * 15, resets=resets) as proxy:
        with Contents(proxy.target) as contents:
            file = contents.download("/a", sink, progress=told.append)
        assert proxy.cuts == 15
    assert sink.getvalue() == LARGE
    assert file.version == version(LARGE)
    assert told == sorted(told)
    assert told[-1] == len(LARGE)


@pytest.mark.parametrize("cut_at", range(0, 1900, 61))
def test_wherever_it_is_cut_it_is_the_same_in_the_end(server: ContentServer, cut_at: int) -> None:
    """Heads, interim answers and the last answer are cut too."""
    content = LARGE[:1000]
    with CuttingProxy(server.target, [cut_at + 1], resets=False) as proxy, Contents(proxy.target) as contents:
        contents.upload("/a", io.BytesIO(content), size=len(content))
    with CuttingProxy(server.target, [cut_at + 1], resets=False) as proxy, Contents(proxy.target) as contents:
        sink = io.BytesIO()
        contents.download("/a", sink)
    assert server.files["/a"] == sink.getvalue() == content


def test_a_file_that_changes_while_its_download_is_cut_is_not_patched_together(server: ContentServer) -> None:
    server.files["/a"] = LARGE

    def change(position: int) -> None:
        if position > 500_000:
            server.files["/a"] = LARGE[::-1]

    with (
        CuttingProxy(server.target, [1_000_000], resets=False) as proxy,
        Contents(proxy.target) as contents,
        pytest.raises(Conflict),
    ):
        contents.download("/a", io.BytesIO(), progress=change)


def test_it_is_given_up_when_nothing_moves(server: ContentServer) -> None:
    server.files["/a"] = LARGE
    with CuttingProxy(server.target, [1] * 1000) as proxy, Contents(proxy.target) as contents:
        with pytest.raises(ConnectionLost):
            contents.download("/a", io.BytesIO())
        assert proxy.connections == attempts.MAX_ATTEMPTS
        with pytest.raises(ConnectionLost):
            contents.upload("/a", io.BytesIO(b"x"), size=1)
        assert proxy.connections == 2 * attempts.MAX_ATTEMPTS


def test_a_write_is_not_sent_twice(server: ContentServer) -> None:
    with CuttingProxy(server.target, [100_000]) as proxy, Contents(proxy.target) as contents:
        with pytest.raises(ConnectionLost):
            contents.write("/a", [LARGE], size=len(LARGE))
        assert proxy.connections == 1
    assert server.files == {}


def test_a_cut_archive_does_not_pass_for_a_whole_one() -> None:
    with ContentServer(cut=lambda _line: 5000) as server, Contents(server.target) as contents:
        server.files["/d"] = LARGE
        with contents.read_archive("/d") as archive, pytest.raises(ConnectionLost):
            for _ in archive:
                pass


def test_it_can_be_ended_from_another_thread(server: ContentServer) -> None:
    begun = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        begun.set()
        with pytest.raises(EOFError):
            peer._more()

    with Scripted(script) as silent, Contents(target(silent)) as contents:

        def interrupt() -> None:
            begun.wait(20)
            contents.interrupt()

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(ConnectionLost, match="ended from here") as caught:
            contents.download("/a", io.BytesIO())
        thread.join()
        assert not caught.value.retry
        assert contents.over
        with pytest.raises(ConnectionLost, match="ended from here"):
            contents.read("/a")
