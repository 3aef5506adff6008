"""Limits and bad input: the table of docs/protocol.md, row by row, and that nothing else is disturbed."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import HEADER, PATIENCE, Client, Message, connect
from tests.vectors import Case, data, each

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def answer(client: Client, frame: str | bytes) -> Message:
    """What the server says to one frame; then the connection must still be good."""
    if isinstance(frame, bytes):
        await client.socket.send_bytes(frame)
    else:
        await client.socket.send_str(frame)
    message = await client.next()
    assert (await client.ask("list"))["type"] == "processList"
    return message


INVALID = [
    "",
    "x",
    "null",
    " null ",
    "{",
    '{"type":"list"',
    '{"type":"list"}}',
    '{"type":"list",}',
    "NaN",
    '{"type":"list","id":0x1}',
    "\x00",
    "{\"type\":'list'}",
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"type":"list","id":' + "[" * 50_000 + "]" * 50_000 + "}",
]


@pytest.mark.parametrize("frame", INVALID, ids=lambda frame: frame[:20])
async def test_what_is_not_json(client: Client, frame: str) -> None:
    message = await answer(client, frame)
    assert (message["type"], message["error"]) == ("error", "Invalid message format")
    assert message["code"] == "invalid-message"
    assert "id" not in message


UNKNOWN = [
    ("{}", "undefined"),
    ("[]", "undefined"),
    ("0", "undefined"),
    ('"list"', "undefined"),
    ('{"type":null}', "null"),
    ('{"type":1}', "1"),
    ('{"type":true}', "true"),
    ('{"type":""}', ""),
    ('{"type":"List"}', "List"),
    ('{"type":{"a":1}}', "[object Object]"),
    ('{"type":["list","x"]}', "list,x"),
    ('{"type":"connected"}', "connected"),
    ('{"type":"' + "x" * 5000 + '"}', "x" * 200),
]


@pytest.mark.parametrize(("frame", "shown"), UNKNOWN, ids=lambda text: text[:20])
async def test_unknown_types(client: Client, frame: str, shown: str) -> None:
    message = await answer(client, frame)
    assert message["code"] == "unknown-type"
    assert message["error"].startswith(f"Unknown message type: {shown}")
    assert len(message["error"]) < 300


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "attach"}, "pid"),
    ({"type": "attach", "pid": "1000"}, "pid"),
    ({"type": "attach", "pid": None}, "pid"),
    ({"type": "attach", "pid": 1.5}, "pid"),
    ({"type": "attach", "pid": 2**80}, "pid"),
    ({"type": "write", "pid": 1}, "data"),
    ({"type": "write", "pid": 1, "data": [1]}, "data"),
    ({"type": "kill", "pid": 1, "signal": 15}, "signal"),
    ({"type": "kill", "pid": 1, "signal": None}, "signal"),
    ({"type": "resize", "pid": 1, "cols": 0, "rows": 10}, "cols"),
    ({"type": "resize", "pid": 1, "cols": 100_000, "rows": 10}, "cols"),
    ({"type": "spawn", "processType": 5}, "processType"),
    ({"type": "spawn", "processType": "shell", "args": "x"}, "args"),
    ({"type": "spawn", "processType": "shell", "args": [1]}, "args"),
    ({"type": "spawn", "processType": "shell", "options": []}, "options"),
    ({"type": "spawn", "processType": "shell", "options": {"env": {"A": 1}}}, "env"),
    ({"type": "spawn", "processType": "shell", "options": {"timeout": -1}}, "timeout"),
    ({"type": "spawn", "processType": "shell", "options": {"timeout": "1"}}, "timeout"),
    ({"type": "spawn", "processType": "shell", "lingerMs": -1}, "lingerMs"),
    ({"type": "spawn", "processType": "shell", "name": 7}, "name"),
    ({"type": "spawn", "processType": "workerd", "name": "n" * 140_000}, "name"),
    ({"type": "spawn", "processType": "k" * 200}, "processType"),
    ({"type": "spawn", "processType": "shell", "key": "k" * 200}, "key"),
    ({"type": "spawn", "processType": "shell", "network": "n" * 200}, "network"),
    ({"type": "spawn", "processType": "shell", "lingerMs": 2**31}, "lingerMs"),
    ({"type": "spawn", "processType": "shell", "options": {"cwd": "d" * 5000}}, "cwd"),
    ({"type": "spawn", "processType": "shell", "ports": {"p" * 65: 0}}, "ports"),
    ({"type": "spawn", "processType": "shell", "ports": {f"p{n}": 0 for n in range(65)}}, "ports"),
    ({"type": "spawn", "processType": "workerd", "worker": {"modules": ["m"] * 1025}}, "modules"),
    ({"type": "kill", "pid": 1, "signal": "S" * 200}, "signal"),
    ({"type": "list", "all": 1}, "all"),
    ({"type": "fsync", "operation": "push", "files": {}}, "files"),
    ({"type": "fsync", "operation": "push", "files": [1]}, "files"),
    ({"type": "ack", "pid": 1, "offset": -1}, "offset"),
]


@pytest.mark.parametrize(("request_", "field"), WRONG, ids=str)
async def test_fields_of_a_wrong_type_or_out_of_range(client: Client, request_: Message, field: str) -> None:
    message = await answer(client, json.dumps({**request_, "id": [1, 2]}))
    assert (message["type"], message["code"], message["id"]) == ("error", "invalid-argument", [1, 2])
    assert field in message["error"]
    assert message["retry"] is False


SPAWNS: list[tuple[dict[str, Any], str]] = [
    ({"command": "a\0b"}, "invalid-argument"),
    ({"args": ["a\0"]}, "invalid-argument"),
    ({"options": {"env": {"A=B": "x"}}}, "invalid-argument"),
    ({"options": {"env": {"": "x"}}}, "invalid-argument"),
    ({"options": {"env": {"A": "\0"}}}, "invalid-argument"),
    ({"options": {"timeout": 1e15}}, "invalid-argument"),
    ({"args": ["x" * 4_000_000]}, "too-large"),
    ({"command": "x" * 4_000_000}, "too-large"),
    ({"options": {"env": {"A": "x" * 200_000}}}, "too-large"),
    ({"options": {"env": {"A": "x" * 140_000}}}, "start-failed"),
    ({"args": [""] * 8193}, "too-large"),
    ({"options": {"env": {f"A{n}": "" for n in range(4097)}}}, "too-large"),
    ({"args": ["\1" * 20_000]}, "too-large"),
]


@pytest.mark.parametrize(("fields", "code"), SPAWNS, ids=lambda value: str(value)[:40])
async def test_what_no_program_can_be_given(client: Client, fields: Message, code: str) -> None:
    request = {"type": "spawn", "id": 1, "processType": "shell", "command": "exit", **fields}
    message = await answer(client, json.dumps(request))
    assert (message["type"], message["code"]) == ("error", code)


async def test_a_list_shows_the_beginning_of_a_long_command_line_an_attach_all_of_it(
    client: Client,
) -> None:
    """Hundreds of processes are in one message."""
    args = ["a" * 1000, "é" * 10_000, "b"]
    pid = await client.spawn("python", "-c", "pass", *args)
    await client.exit(pid)
    listed = (await client.ask("list", all=True))["processes"]
    [row] = [row for row in listed if row["pid"] == pid]
    assert row["args"] == ["pass", "a" * 1000, "…"]
    attached = await client.ask("attach", pid=pid)
    assert attached["process"]["args"] == ["pass", *args]


async def test_unknown_fields_are_ignored(client: Client) -> None:
    message = await answer(client, '{"type":"ping","id":1,"pid":{"x":[]},"future":true}')
    assert message["type"] == "pong"


async def test_an_id_that_is_too_long(client: Client) -> None:
    message = await answer(client, json.dumps({"type": "ping", "id": "x" * 4094}))
    assert message["type"] == "pong"
    message = await answer(client, json.dumps({"type": "list", "id": "x" * 4096}))
    assert message["type"] in ("error", "status")


async def test_an_id_of_more_than_4096_bytes_is_not_echoed(newer: Client) -> None:
    message = await answer(newer, json.dumps({"type": "list", "id": "x" * 4095}))
    assert (message["type"], message["code"]) == ("error", "too-large")
    assert "id" not in message


async def test_nesting_of_some_hundred_levels_is_fine(client: Client) -> None:
    message = await answer(client, '{"type":"list","id":' + "[" * 300 + "]" * 300 + "}")
    assert message["type"] == "processList"


# Close codes


async def test_a_text_frame_that_is_not_utf_8(server: TestServer, client: Client) -> None:
    async with connect(server) as bad:
        await bad.socket.send_frame(b'{"type":"list","x":"\xff"}', aiohttp.WSMsgType.TEXT)
        assert await bad.expect_close() == 1007
    await client.quiet()


async def test_a_message_that_is_too_large(server: TestServer, client: Client) -> None:
    """Refused when its size is known, not when it is there."""
    async with connect(server) as bad:
        transport = bad.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.write(
            struct.pack(">BBQ4s", 0x81, 0x80 | 127, (128 << 20) + 1, b"\0\0\0\0") + b"x" * 100_000
        )
        assert await bad.expect_close() == 1009
    await client.quiet()


async def test_fragments_that_add_up_to_too_much_are_refused_as_well(
    server: TestServer, client: Client
) -> None:
    async with connect(server) as bad:
        transport = bad.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        size = (128 << 20) - 10
        transport.write(struct.pack(">BBQ4s", 0x01, 0x80 | 127, size, b"\0\0\0\0"))
        for _ in range(size >> 20):
            transport.write(bytes(1 << 20))
            await client.ask("ping")
        transport.write(bytes(size & ((1 << 20) - 1)))
        transport.write(struct.pack(">BB4s", 0x80, 0x80 | 100, b"\0\0\0\0") + bytes(100))
        assert await bad.expect_close() == 1009
    await client.quiet()


VIOLATIONS = {
    "reserved bit": b"\xc1\x82\0\0\0\0{}",
    "unknown opcode": b"\x83\x80\0\0\0\0",
    "continuation of nothing": b"\x80\x82\0\0\0\0{}",
    "fragmented ping": b"\x09\x80\0\0\0\0",
    "long ping": b"\x89\xfe\x00\x80\0\0\0\0" + bytes(128),
    "close with one byte": b"\x88\x81\0\0\0\0\x03",
    "text inside of a text": b"\x01\x81\0\0\0\0{\x01\x81\0\0\0\0}",
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_a_violation_of_the_websocket_protocol(server: TestServer, client: Client, data: bytes) -> None:
    async with connect(server) as bad:
        transport = bad.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.write(data)
        assert await bad.expect_close() == 1002
    await client.quiet()


async def test_pings_whose_answers_are_not_read_are_bounded(server: TestServer, client: Client) -> None:
    """A ping is answered without asking anybody: 100 MB of them must not wait in the server as pongs."""
    before = memory(server)
    async with connect(server) as bad:
        transport = bad.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.pause_reading()
        pings = (b"\x89\xfd\0\0\0\0" + bytes(125)) * 8000
        for _ in range(40):
            transport.write(pings)
            await client.ask("ping")
        assert memory(server) - before < 8 << 20
        bad.vanish()


def memory(server: TestServer) -> int:
    """Bytes of the server process's own."""
    lines = Path(f"/proc/{server.server_pid()}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["RssAnon"].split()[0]) << 10


# Binary frames


async def test_a_binary_frame_that_nobody_negotiated(client: Client) -> None:
    for frame in (HEADER.pack(3, 0, 0, 1000, 0) + b"x", b"", b"x"):
        message = await answer(client, frame)
        assert (message["type"], message["code"]) == ("error", "not-negotiated")


@each("headers")
async def test_binary_frames(newer: Client, case: Case) -> None:
    """A server refuses what is wrong, and what only servers send; input for a pid that is
    not there is ignored."""
    start = len(newer.seen)
    await newer.socket.send_bytes(data(case["header"]) + data(case["payload"]))
    await newer.quiet()
    codes = [message.get("code") for message in newer.seen[start:-1]]
    if case["by"] == "client" and "frame" in case:
        assert codes == [] or case["frame"]["flags"]
    elif case["by"] == "client":
        assert codes == [case["error"]]
    else:
        assert set(codes) <= {"invalid-message", "too-large"}
        assert len(codes) == (case["name"] != "input from a server")


async def test_binary_input_for_a_pid_that_is_not_there_is_ignored(newer: Client) -> None:
    await newer.type(99, b"x")
    await newer.quiet()
    assert len(newer.seen) == 2


# Input


async def test_input_to_a_process_that_does_not_read_is_bounded(client: Client, newer: Client) -> None:
    """Accepted whole or refused whole, and told; what was accepted arrives."""
    pid = await newer.run("trap 'exec wc -c' USR1; echo up; while :; do sleep 0.01; done")
    await newer.text(pid, "up\n")
    accepted = 0
    block = bytes(256 * 1024)
    while True:
        await newer.type(pid, block)
        await newer.send("list", id=accepted)
        message = await newer.next()
        if message["type"] == "error":
            break
        accepted += len(block)
        assert accepted <= 2 << 20
    assert (message["code"], message["retry"], message["pid"]) == ("input-full", True, pid)
    assert accepted >= 1 << 20
    await newer.until_id(accepted)
    await client.send("write", pid=pid, data="x" * (1 << 19))
    assert (await client.until("error"))["code"] == "input-full"
    await client.send("write", pid=pid, data="x" * (2 << 20))
    assert (await client.until("error"))["code"] == "too-large"
    assert (await client.ask("list"))["type"] == "processList"
    await newer.send("kill", pid=pid, signal="SIGUSR1")
    await newer.send("closeStdin", pid=pid)
    await newer.exit(pid)
    assert newer.output(pid).split()[-1] == str(accepted)


async def test_input_that_finds_nothing_waiting_is_bounded_too(client: Client, newer: Client) -> None:
    """The first write was always kept, however large it was."""
    pid = await newer.run("trap 'exec wc -c' USR1; echo up; while :; do sleep 0.01; done", pty=False)
    await newer.text(pid, "up\n")
    await client.send("write", pid=pid, data="x" * ((1 << 20) + 1))
    error = await client.until("error")
    assert (error["code"], error["retry"]) == ("too-large", False)
    for _ in range(2):
        await client.send("write", pid=pid, data="x" * (1 << 19))
    await client.quiet()
    await client.send("write", pid=pid, data="x" * (1 << 19))
    error = await client.until("error")
    assert (error["code"], error["retry"]) == ("input-full", True)
    await newer.send("kill", pid=pid, signal="SIGUSR1")
    await newer.send("closeStdin", pid=pid)
    await newer.exit(pid)
    assert newer.output(pid).split()[-1] == str(1 << 20)


async def test_a_write_to_a_process_that_has_ended(client: Client) -> None:
    pid = await client.run("exit 0")
    await client.exit(pid)
    await client.send("write", pid=pid, data="x", id=5)
    error = await client.until("error")
    assert (error["code"], error["pid"], error["id"]) == ("input-closed", pid, 5)
    await client.send("resize", pid=pid, cols=10, rows=10)
    await client.quiet()
    assert [m["type"] for m in client.seen].count("error") == 1


# HTTP


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: {host}\r\nX: " + "x" * 20_000 + "\r\n\r\n",
        "GET /" + "x" * 20_000 + " HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "NONSENSE\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: {host}\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
        "GET / HTTP/1.1\r\nHost: {host}\r\nContent-Length: -5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=lambda head: head[:20],
)
async def test_bad_http_is_refused_and_harms_nobody(server: TestServer, client: Client, head: str) -> None:
    host = server.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(head.replace("{host}", host).encode("latin-1"))
    writer.write_eof()
    status = (await asyncio.wait_for(reader.read(), PATIENCE)).split(b" ")[1:2]
    assert status in ([], [b"400"], [b"401"], [b"429"])
    writer.close()
    await client.quiet()
