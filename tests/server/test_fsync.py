"""fsync of 1.0: what is pushed is what lies there and comes back, byte for byte, within bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, Message, connect
from tests.server.conftest import server_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
#: Of the server, for a push of 5 files of 5 MB as arrays of numbers: the message as it arrives in pieces and
#: joined (90 MB each), and one file's content at a time.
MOST_PUSH_BYTES = 300 * MIB


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


async def test_a_pull_of_more_than_a_message_can_carry_is_refused(tmp_path: Path) -> None:
    """Half of a workspace would look like deletions of the other half."""
    async with server_in(tmp_path) as server, connect(server, newer=True) as client:
        with (server.workspace / "large").open("wb") as file:
            file.truncate(33 * MIB)
        answer = await client.ask("fsync", operation="pull")
        assert (answer["type"], answer["status"]) == ("fsyncResult", "error")
        assert str(32 * MIB) in answer["error"]
        assert "files" not in answer


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
        assert _peak(server) - before < MOST_PUSH_BYTES
        for number, content in enumerate(contents):
            stored = (server.workspace / "big" / str(number)).read_bytes()
            assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()
        await other.ask("ping")
        await other.socket.send_str(json.dumps({"type": "fsync", "id": 2, "operation": "pull"}))
        pulled = await other.until("fsyncResult")
        found = {file["path"]: file for file in pulled["files"]}
        assert all(bytes(found[f"/big/{n}"]["content"]) == content for n, content in enumerate(contents))


def _peak(server: TestServer) -> int:
    """Most bytes that the server process has ever held (proc(5), VmHWM)."""
    lines = Path(f"/proc/{server.server_pid()}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) << 10
