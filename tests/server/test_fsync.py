"""fsync of 1.0: what is pushed is what lies there and comes back, byte for byte, within bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, Message, connect, eventually
from tests.server.conftest import server_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
#: Of the server, for a push of 5 files of 5 MB as arrays of numbers, which are 90 MB, and their pull: what is
#: on its way, in pieces.
MOST_BYTES = 40 * MIB


async def push(client: Client, *files: Message) -> Message:
    answer = await client.ask("fsync", operation="push", files=list(files))
    assert (answer["type"], answer["operation"], answer["status"]) == ("fsyncResult", "push", "success")
    results: Message = answer["results"]
    return results


async def pull(client: Client) -> dict[str, Message]:
    answer = await client.ask("fsync", operation="pull")
    assert (answer["type"], answer["operation"], answer["status"]) == ("fsyncResult", "pull", "success")
    return {file["path"]: file for file in answer["files"]}


async def test_content_of_every_kind_comes_back_as_numbers(server: TestServer, client: Client) -> None:
    every_byte = list(range(256)) * 3
    results = await push(
        client,
        {"path": "/kinds/deep/bytes", "kind": "file", "content": every_byte, "mtime": 1_600_000_000_123},
        {"path": "/kinds/text", "kind": "file", "content": "h\u00e9 \ud83d\ude00"},
        {"path": "/kinds/empty", "kind": "file", "content": []},
        {"path": "/kinds/absent", "kind": "file"},
        {"path": "/kinds/null", "kind": "file", "content": None},
        {"path": "/kinds/folder", "kind": "directory"},
        {"path": "/kinds/no-kind", "content": "x"},
    )
    assert results == {"synced": 7, "failed": 0, "errors": []}
    folder = server.workspace / "kinds"
    assert (folder / "deep" / "bytes").read_bytes() == bytes(every_byte)
    assert (folder / "deep" / "bytes").stat().st_mtime_ns // 1_000_000 == 1_600_000_000_123
    assert (folder / "text").read_text() == "hé 😀"
    assert all((folder / name).read_bytes() == b"" for name in ("empty", "absent", "null"))
    found = await pull(client)
    assert found["/kinds/deep/bytes"]["content"] == every_byte
    assert found["/kinds/text"]["content"] == list("hé 😀".encode())
    assert not found["/kinds/empty"].get("content")
    assert found["/kinds/folder"]["kind"] == "directory"
    assert abs(found["/kinds/deep/bytes"]["mtime"] - 1_600_000_000_123) < 1


async def test_a_push_truncates_what_is_there(server: TestServer, client: Client) -> None:
    await push(client, {"path": "/again", "content": "a long content"})
    await push(client, {"path": "/again", "content": "short"})
    assert (server.workspace / "again").read_text() == "short"


async def test_one_files_failure_does_not_fail_the_rest(server: TestServer, client: Client) -> None:
    (server.workspace / "a-folder").mkdir(exist_ok=True)
    bad: list[Message] = [
        {"path": "/a-folder", "kind": "file", "content": "x"},
        {"path": "../outside", "content": "x"},
        {"path": "/numbers", "content": [1, 256]},
        {"path": "/numbers", "content": [1, -1]},
        {"path": "/numbers", "content": [1.5]},
        {"path": "/numbers", "content": {"a": 1}},
        {"path": "/nul\0", "content": "x"},
        {"path": "/" + "n" * 300, "content": "x"},
        {"path": "/pipe", "kind": "fifo"},
        {"path": "", "content": "x"},
    ]
    results = await push(client, {"path": "/first", "content": "1"}, *bad, {"path": "/last", "content": "2"})
    assert (results["synced"], results["failed"]) == (2, len(bad))
    errors = results["errors"]
    assert [error["path"] for error in errors] == [file["path"] for file in bad]
    assert all(error["error"] for error in errors)
    assert (server.workspace / "last").read_text() == "2"
    assert not (server.workspace.parent / "outside").exists()
    assert not (server.workspace / "numbers").exists() or not (server.workspace / "numbers").read_bytes()


async def test_links_lead_nowhere(server: TestServer, client: Client) -> None:
    """Checks by string prefix let a sibling folder and every kind of symlink out."""
    secret = server.workspace.parent / "workspace-secret"
    secret.mkdir(exist_ok=True)
    (secret / "file").write_text("secret")
    links: dict[str, str | Path] = {
        "to-folder": secret,
        "to-file": secret / "file",
        "relative": "../workspace-secret",
        "to-new": secret / "new",
    }
    for name, target in links.items():
        (server.workspace / name).symlink_to(target)
    paths = ["/to-folder/x", "/to-folder/file", "/relative/x", "/to-folder/../workspace-secret/x"]
    results = await push(client, *({"path": path, "content": "overwritten"} for path in paths))
    assert results["failed"] == len(paths) or not (secret / "x").exists()
    await push(client, *({"path": f"/{name}", "content": "overwritten"} for name in links))
    assert sorted(path.name for path in secret.iterdir()) == ["file"]
    assert (secret / "file").read_text() == "secret"
    assert not any(
        "secret" in bytes(file.get("content") or []).decode("latin-1")
        for file in (await pull(client)).values()
    )


async def test_a_pull_of_more_than_a_message_can_carry_is_an_error(tmp_path: Path) -> None:
    """Half of a workspace would look like deletions of the other half."""
    async with server_in(tmp_path) as server, connect(server, newer=True) as client:
        for name in ("a", "b", "c"):
            with (server.workspace / name).open("wb") as file:
                file.truncate(12 * MIB)
        answer = await client.ask("fsync", operation="pull")
        assert (answer["type"], answer["status"]) == ("fsyncResult", "error")
        assert str(32 * MIB) in answer["error"]


@pytest.mark.parametrize("newer", [False, True])
async def test_a_file_that_cannot_be_pulled_fails_alone(tmp_path: Path, newer: bool) -> None:
    """A sparse file of 1 TB once failed the whole pull, with all that was worth something."""
    async with server_in(tmp_path) as server, connect(server, newer=newer) as client:
        with (server.workspace / "sparse").open("wb") as file:
            file.truncate(1 << 40)
        (server.workspace / "kept").write_text("x")
        await client.send("fsync", id=1, operation="pull")
        answers = [await client.until("fsyncResult")] + ([] if newer else [await client.until("status")])
        for answer in answers:
            assert [(file["path"], file["content"]) for file in answer["files"]] == [("/kept", [120])]
            [failure] = answer["errors"]
            assert failure["path"] == "/sparse"
            assert "one pull carries" in failure["error"]
            assert (answer["status"], answer["id"]) == ("success", 1)


async def test_a_large_pull_comes_whole_and_twice_to_a_client_of_1_0(tmp_path: Path) -> None:
    """It goes out in fragments, between which nothing else may come, though a process floods."""
    content = os.urandom(3 * MIB)
    async with server_in(tmp_path) as server, connect(server) as client:
        (server.workspace / "large").write_bytes(content)
        await client.run("exec yes")
        await client.send("fsync", id=1, operation="pull")
        await client.send("ping", id=2)
        for kind in ("fsyncResult", "status"):
            answer = await client.until(kind)
            assert (answer["id"], answer["status"]) == (1, "success")
            assert bytes(answer["files"][0]["content"]) == content
        assert (await client.until("pong"))["id"] == 2


async def test_a_client_that_leaves_during_a_pull_leaves_nothing_behind(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, connect(server) as other:
        for number in range(3000):
            (server.workspace / str(number)).write_bytes(bytes(10_000))
        for _ in range(20):
            async with connect(server, newer=True) as leaving:
                await leaving.send("fsync", id=1, operation="pull")
                leaving.vanish()
        await push(other, {"path": "/after", "content": "x"})

        async def nothing_is_open() -> bool:
            links = []
            for link in Path(f"/proc/{server.server_pid()}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                    links.append(os.readlink(link))
            return not any(link.startswith(f"{server.workspace}/") for link in links)

        await eventually(nothing_is_open)


async def test_pulls_of_others_keep_nobody_waiting(tmp_path: Path) -> None:
    """Deep trees of some clients once occupied all threads; now they take turns with a push."""
    async with server_in(tmp_path) as server, AsyncExitStack() as stack:
        folder = server.workspace
        for _ in range(60):
            folder = folder / "d"
            folder.mkdir()
            for number in range(50):
                (folder / str(number)).touch()
        greedy = [await stack.enter_async_context(connect(server, newer=True)) for _ in range(6)]
        modest = await stack.enter_async_context(connect(server))
        for client in greedy:
            for number in range(50):
                await client.send("fsync", id=number, operation="pull")
        await greedy[-1].until("fsyncResult")
        results = await push(modest, {"path": "/x", "content": "x"})
        assert results["synced"] == 1
        assert not any(client.socket.closed for client in greedy)
        # The others are far from done: what was asked for after them did not wait for them.
        assert sum(len(client.seen) for client in greedy) < 150
        for client in greedy:
            client.vanish()


MESSAGE = '{{"type":"fsync","id":5,"operation":"push","files":[{files}]}}'


async def test_a_large_push_goes_on_after_a_file_that_is_wrong(server: TestServer, client: Client) -> None:
    inside = "h\\u00e9\\ud83d\\ude00\\n" * 100_000
    text = f'{{"path":"/slices/text","content":"{inside}","mtime":1600000000000}}'
    numbers = '{"path":"/slices/numbers","content":[' + ",".join(["7", "255"] * 500_000) + "]}"
    wrong = '{"path":"/slices/wrong","content":[' + ",".join(["7"] * 300_000 + ["256"] * 100_000) + "]}"
    broken = '{"path":"/slices/broken","content":"' + "x" * 300_000 + '\\x","mtime":1}'
    folder = '{"path":"/slices/folder","kind":"directory"}'
    last = '{"path":"/slices/last","content":"x"}'
    files = f"{text},{wrong},{numbers},{broken},{folder},{last}"
    await client.socket.send_str(MESSAGE.format(files=files))
    answer = await client.until("fsyncResult")
    assert answer["id"] == 5
    assert (answer["results"]["synced"], answer["results"]["failed"]) == (4, 2)
    assert [error["path"] for error in answer["results"]["errors"]] == ["/slices/wrong", "/slices/broken"]
    assert (await client.until("status"))["id"] == 5
    there = server.workspace / "slices"
    assert (there / "text").read_text() == "hé😀\n" * 100_000
    assert (there / "numbers").read_bytes() == bytes([7, 255]) * 500_000
    assert sorted(path.name for path in there.iterdir()) == ["folder", "last", "numbers", "text"]


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ('{"files":[', "too-large"),
        ('{"x":"' + "y" * 5000 + '","type":"fsync","operation":"push","files":[', "too-large"),
        ('{"x":{"type":"fsync"},"operation":"push","files":[', "too-large"),
        ('{"type":"write","id":9,"operation":"push","files":[', "too-large"),
        ('{"type":"fsync","id":9,"operation":"pull","files":[', "invalid-argument"),
        ('{"type":"fsync","id":9,"files":[', "invalid-argument"),
        ('{"type":"fsync","id":9,"operation":"push","files":[[', "invalid-message"),
    ],
)
async def test_what_is_no_push_may_not_be_large(client: Client, before: str, code: str) -> None:
    """It is refused by its beginning, not received and then refused; the connection stays good."""
    content = ",".join(["1"] * MIB)
    await client.socket.send_str(f'{before}{{"path":"/no","content":[{content}]}}]}}')
    answer = await client.until("error")
    assert answer["code"] == code
    assert ("id" in answer) == ('"id"' in before and code != "invalid-message")
    await client.quiet()


async def test_a_large_push_that_breaks_off_leaves_no_half_file(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, connect(server) as other:
        async with connect(server) as leaving:
            transport = leaving.socket._response.connection.transport  # type: ignore[union-attr]
            assert transport is not None
            whole = '{"path":"/whole","content":"' + "x" * MIB + '"},'
            data = MESSAGE.format(files=whole + '{"path":"/half","content":"' + "x" * (2 * MIB))
            head = struct.pack(">BBQ4s", 0x81, 0xFF, len(data) + MIB, b"\0\0\0\0")
            transport.write(head + data.encode())

            async def half_is_there() -> bool:
                names = {path.name for path in server.workspace.iterdir()}
                return "whole" in names and unnamed_files(server) > 0

            await eventually(half_is_there)
            leaving.vanish()

        async def is_gone() -> bool:
            names = {path.name for path in server.workspace.iterdir()}
            return names == {"whole"} and unnamed_files(server) == 0

        await eventually(is_gone)
        await other.quiet()


def unnamed_files(server: TestServer) -> int:
    """How many of the workspace's disk the server has open that have no name, as half a file has none."""
    found, folder = 0, Path(f"/proc/{server.server_pid()}/fd")
    for link in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            path = os.readlink(link)
            found += path.startswith(str(server.workspace)) and path.endswith(" (deleted)")
    return found


async def test_an_unknown_operation(client: Client) -> None:
    answer = await client.ask("fsync", operation="merge")
    assert (answer["type"], answer["status"]) == ("fsyncResult", "error")
    assert answer["error"] == "Unknown operation: merge"
    answer = await client.ask("fsync")
    assert answer["error"] == "Unknown operation: undefined"


@pytest.mark.timeout(120)
async def test_the_largest_push_of_a_client_of_1_0_takes_bounded_memory(tmp_path: Path) -> None:
    """5 files of 5 MB as arrays of numbers are one message of 90 MB; parsed into lists it would be 1.2 GB."""
    blocks = [os.urandom(500_000) for _ in range(5)]
    contents = [block * 10 for block in blocks]
    numbers = [",".join([",".join(map(str, block))] * 10) for block in blocks]
    files = ",".join(
        f'{{"path":"/big/{n}","kind":"file","content":[{text}],"mtime":1600000000000}}'
        for n, text in enumerate(numbers)
    )
    async with server_in(tmp_path) as server, connect(server) as client, connect(server, newer=True) as other:
        before = _peak(server)
        await client.socket.send_str(f'{{"type":"fsync","id":1,"operation":"push","files":[{files}]}}')
        answer = await client.until("fsyncResult")
        assert answer["results"] == {"synced": 5, "failed": 0, "errors": []}
        for number, content in enumerate(contents):
            stored = (server.workspace / "big" / str(number)).read_bytes()
            assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()
        await other.ask("ping")
        await other.socket.send_str(json.dumps({"type": "fsync", "id": 2, "operation": "pull"}))
        pulled = await other.until("fsyncResult")
        found = {file["path"]: file for file in pulled["files"]}
        assert all(bytes(found[f"/big/{n}"]["content"]) == content for n, content in enumerate(contents))
        assert _peak(server) - before < MOST_BYTES


def _peak(server: TestServer) -> int:
    """Most bytes that the server process has ever held (proc(5), VmHWM)."""
    lines = Path(f"/proc/{server.server_pid()}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) << 10
