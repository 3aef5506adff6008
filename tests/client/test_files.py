"""Files of the workspace as an asyncio program sees them: what is asked as which message, content in threads
that end with their caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.client import Conflict, ConnectionLost, RequestFailed, connect
from mhnos_runtime.client import files as module
from mhnos_runtime.client.contents import Contents
from mhnos_runtime.client.files import Files
from mhnos_runtime.client.watches import Watches
from mhnos_runtime.wire import messages as m
from tests.client.content_server import TOKEN, ContentServer, version
from tests.client.peer import Peer, Scripted, target

LARGE = bytes(range(256)) * 4000


class Asked:
    """A double of the runtime: notes what is asked, and answers what it was told to."""

    def __init__(self) -> None:
        self.asked: list[m.Message] = []
        self.resent: list[bool] = []
        self.answers: list[m.Message] = []

    async def request(self, message: m.Message, answer: type[m.Message], **options: Any) -> m.Message:
        self.asked.append(message)
        self.resent.append(options.get("resend", False))
        given = self.answers.pop(0)
        assert isinstance(given, answer)
        return given


def info(path: str) -> m.FileInfo:
    return m.FileInfo(path, "file", 1, 0o644, 5, "0" * 24)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def server() -> Any:
    with ContentServer() as serving:
        yield serving


@pytest.fixture
async def files(asked: Asked, server: ContentServer) -> AsyncIterator[Files]:
    made = Files(asked, Watches.__new__(Watches), server.target)  # type: ignore[arg-type]
    yield made
    await made.close()


async def test_a_list_goes_over_all_pages(files: Files, asked: Asked) -> None:
    asked.answers = [
        m.FileList("/d", [info("/d/a"), info("/d/b")], next="b"),
        m.FileList("/d", [info("/d/c")]),
    ]
    assert [file.path async for file in files.list("/d")] == ["/d/a", "/d/b", "/d/c"]
    assert [(each.path, each.after) for each in asked.asked if isinstance(each, m.ListFiles)] == [
        ("/d", None),
        ("/d", "b"),
    ]
    assert asked.resent == [True, True]


async def test_the_trash_goes_over_all_pages(files: Files, asked: Asked) -> None:
    items = [m.TrashItem(f"{number:016x}", "/a", "file", 1, 2, 3) for number in range(3)]
    asked.answers = [m.TrashList(items[:2], next=items[1].id), m.TrashList(items[2:])]
    assert [item async for item in files.trash()] == items
    assert [each.before for each in asked.asked if isinstance(each, m.ListTrash)] == [None, items[1].id]


REQUESTS: list[tuple[Callable[[Files], Any], m.Message, m.Message, bool]] = [
    (
        lambda files: files.stat("a", follow=False, sha256=True),
        m.StatFile("a", follow=False, sha256=True),
        m.FileStat(info("/a"), "00"),
        True,
    ),
    (
        lambda files: files.search("/d", name="*.py", pattern="x", fixed=True, max=5),
        m.SearchFiles("/d", name="*.py", pattern="x", fixed=True, max=5),
        m.FileSearchResult([], 1),
        True,
    ),
    (lambda files: files.make_directory("d"), m.MakeDirectory("d"), m.DirectoryMade(info("/d")), False),
    (
        lambda files: files.make_directory("d/e", parents=True),
        m.MakeDirectory("d/e", parents=True),
        m.DirectoryMade(info("/d/e")),
        True,
    ),
    (
        lambda files: files.move("a", "b", replace=True, version="0" * 24),
        m.MoveFile("a", "b", replace=True, version="0" * 24),
        m.FileMoved(info("/b")),
        False,
    ),
    (
        lambda files: files.copy("a", "b", replace=True),
        m.CopyFile("a", "b", replace=True),
        m.FileCopied(info("/b"), 1, 1),
        False,
    ),
    (
        lambda files: files.remove("a", recursive=True, outright=True, version="0" * 24),
        m.RemoveFile("a", recursive=True, outright=True, version="0" * 24),
        m.FileRemoved("/a"),
        False,
    ),
    (
        lambda files: files.restore("0" * 16, "b"),
        m.RestoreFile("0" * 16, "b"),
        m.FileRestored(info("/b")),
        False,
    ),
    (
        lambda files: files.empty_trash(["0" * 16]),
        m.EmptyTrash(["0" * 16]),
        m.TrashEmptied(1),
        False,
    ),
    (lambda files: files.empty_trash(), m.EmptyTrash(), m.TrashEmptied(7), False),
]


@pytest.mark.parametrize(("call", "message", "answer", "resent"), REQUESTS)
async def test_each_method_is_one_request(
    files: Files,
    asked: Asked,
    call: Callable[[Files], Any],
    message: m.Message,
    answer: m.Message,
    resent: bool,
) -> None:
    """What may be carried out twice is sent again on a new connection, and nothing else is."""
    asked.answers = [answer]
    got = await call(files)
    assert got in (answer, getattr(answer, "file", answer), getattr(answer, "items", answer))
    assert (asked.asked, asked.resent) == ([message], [resent])


# Content


async def test_content_there_and_back(files: Files, server: ContentServer) -> None:
    made = await files.write("/a", "grün", absent=True, mode=0o600)
    assert (made.path, made.mode, made.version) == ("/a", 0o600, version("grün".encode()))
    assert await files.read("/a") == "grün".encode()
    assert await files.read_text("/a", version=made.version) == "grün"
    with pytest.raises(UnicodeDecodeError):
        await files.read_text("/a", encoding="ascii")
    with pytest.raises(Conflict):
        await files.write("/a", b"x", absent=True)
    await files.write("/a", b"x", version=made.version)
    with pytest.raises(Conflict):
        await files.read("/a", version=made.version)
    assert server.connections == 2, "one more, since a refused body was never sent"


async def test_a_file_that_is_too_large_is_not_read(files: Files, server: ContentServer) -> None:
    server.files["/a"] = LARGE
    with pytest.raises(RequestFailed, match="more than 1000") as caught:
        await files.read("/a", max_bytes=1000)
    assert caught.value.code == "too-large"
    assert len(await files.read("/a", max_bytes=len(LARGE))) == len(LARGE)


async def test_a_file_comes_in_pieces(files: Files, server: ContentServer) -> None:
    server.files["/a"] = LARGE
    assert b"".join([piece async for piece in files.open("/a")]) == LARGE
    assert b"".join([piece async for piece in files.open("/a", start=5)]) == LARGE[5:]
    async for piece in files.open("/a"):
        assert piece
        break
    assert await files.read("/a") == LARGE


async def test_files_and_directories_of_this_machine(
    files: Files, server: ContentServer, tmp_path: Path
) -> None:
    told: list[int] = []
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").write_bytes(LARGE)
    sent = await files.upload(tmp_path / "here" / "a", "/a", progress=told.append)
    assert sent.size == told[-1] == len(LARGE)
    assert await files.download("/a", tmp_path / "back", progress=told.append) == sent
    await files.upload_directory(tmp_path / "here", "/d")
    done = await files.download_directory("/d", tmp_path / "there")
    assert (done.files, done.bytes, done.skipped) == (1, len(LARGE), [])
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there" / "a").read_bytes() == LARGE


async def test_many_at_a_time_share_some_connections(files: Files, server: ContentServer) -> None:
    await asyncio.gather(*(files.write(f"/{number}", b"x") for number in range(40)))
    await asyncio.gather(*(files.read(f"/{number}") for number in range(40)))
    assert len(server.files) == 40
    assert len([thread for thread in threading.enumerate() if "mhnos-files" in thread.name]) <= (
        module.MAX_TRANSFERS
    )


async def test_one_that_is_cancelled_ends_its_connection(asked: Asked) -> None:
    begun, ended = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        begun.set()
        with pytest.raises(EOFError):
            peer._more()
        ended.set()

    with Scripted(script) as silent:
        files = Files(asked, Watches.__new__(Watches), target(silent))  # type: ignore[arg-type]
        reading = asyncio.create_task(files.read("/a"))
        await asyncio.to_thread(begun.wait, 20)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await asyncio.to_thread(ended.wait, 20)
        await files.close()


async def test_the_end_of_the_client_ends_what_is_under_way(asked: Asked) -> None:
    begun = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        begun.set()
        with pytest.raises(EOFError):
            peer._more()

    with Scripted(script) as silent:
        files = Files(asked, Watches.__new__(Watches), target(silent))  # type: ignore[arg-type]
        reading = asyncio.create_task(files.read("/a"))
        await asyncio.to_thread(begun.wait, 20)
        await files.close()
        with pytest.raises(ConnectionLost, match="ended from here"):
            await reading


async def test_one_that_waits_for_a_thread_ends_with_the_client(
    asked: Asked, server: ContentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TRANSFERS", 1)
    files = Files(asked, Watches.__new__(Watches), server.target)  # type: ignore[arg-type]
    begun, over = threading.Event(), threading.Event()

    def hold(_contents: Contents) -> None:
        begun.set()
        over.wait(20)

    holding = asyncio.create_task(files.run(hold))
    await asyncio.to_thread(begun.wait, 20)
    waiting = asyncio.create_task(files.read("/a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await files.close()
    with pytest.raises(ConnectionLost, match="closed"):
        await waiting
    over.set()
    await holding


async def test_the_runtime_has_it() -> None:
    runtime = connect("http://127.0.0.1:1", TOKEN)
    assert isinstance(runtime.files, Files)
    assert runtime.files is runtime.files
