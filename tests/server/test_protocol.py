"""Protocol 1.0.0, row by row, as the clients that exist speak it."""

from __future__ import annotations

import json
import time

import aiohttp
import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATS = {"totalSpawned", "totalKilled", "active"}


async def raw(client: Client, text: str) -> str:
    """The text of the answer to the text of a request."""
    await client.socket.send_str(text)
    return str((await client.socket.receive(10)).data)


async def test_the_server_speaks_first(client: Client) -> None:
    assert client.hello["protocolVersion"] == "1.0.0"
    config = {"workspace": "/workspace", "sandboxMode": "none", "allowOpenClaw": False}
    assert client.hello["config"] == config
    assert {"serverId", "serverVersion", "features", "limits"} <= client.hello.keys()


@pytest.mark.parametrize("path", ["/", "/ws", "/a/b%20c?x=1&y"])
async def test_a_websocket_opens_on_any_path_with_any_query(server: TestServer, path: str) -> None:
    url = f"{server.url}{path}{'&' if '?' in path else '?'}token={server.token}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        assert json.loads((await socket.receive(10)).data)["type"] == "connected"
        assert socket.protocol is None


IDS = [
    "1",
    "-0",
    "1.50",
    "1e400",
    "12345678901234567890123",
    '""',
    '"caf\\u00e9 \\ud83d"',
    "null",
    "true",
    "[1, [2],  {}]",
    '{"b": 1, "a": [ ]}',
]


@pytest.mark.parametrize("number", IDS)
async def test_an_id_comes_back_byte_for_byte(client: Client, number: str) -> None:
    """A server that parses and prints it again turns 1.50 into 1.5 and loses digits of long numbers."""
    assert (await raw(client, f'{{"type":"list","id":{number}}}')).endswith(f'"id":{number}}}')


async def test_an_id_comes_back_with_errors_too(client: Client) -> None:
    answer = await client.ask("nonsense")
    assert (answer["type"], answer["error"]) == ("error", "Unknown message type: nonsense")


@pytest.mark.parametrize(
    "request_", ['{"type":"list"}', '{"type":"ping"}', '{"type":"what"}', '{"type":"kill","pid":1}']
)
async def test_no_id_in_no_id_out(client: Client, request_: str) -> None:
    assert "id" not in json.loads(await raw(client, request_))


async def test_answers_to_pipelined_requests_come_in_order(client: Client) -> None:
    """A slow request (a spawn, a pull) does not let later ones overtake it."""
    kinds = ["spawn", "list", "fsync", "ping", "status", "spawn", "list"]
    fields = {"spawn": {"processType": "shell", "command": "exit 0"}, "fsync": {"operation": "pull"}}
    for number, kind in enumerate(kinds):
        await client.send(kind, id=number, **fields.get(kind, {}))
    answered: list[int] = []
    while len(answered) < len(kinds):
        message = await client.next()
        if "id" in message and message["id"] not in answered:
            answered.append(message["id"])
    assert answered == list(range(len(kinds)))


async def test_list_has_the_fields_of_1_0(client: Client) -> None:
    before = time.time() * 1000
    pid = await client.spawn("shell", "read", "word")
    answer = await client.ask("list")
    assert set(answer["stats"]) == STATS
    [row] = [row for row in answer["processes"] if row["pid"] == pid]
    assert row["type"] == "shell"
    assert (row["command"], row["args"], row["status"]) == ("read", ["word"], "running")
    assert before - 5000 < row["startTime"] < time.time() * 1000 + 5000
    await client.ask("kill", pid=pid)
    assert pid not in [row["pid"] for row in (await client.ask("list"))["processes"]]


async def test_statistics_count_what_has_started_and_what_has_ended(client: Client) -> None:
    before = (await client.ask("list"))["stats"]
    pid = await client.run("exit 3")
    await client.exit(pid)
    after = (await client.ask("list"))["stats"]
    assert after["totalSpawned"] == before["totalSpawned"] + 1
    assert after["totalKilled"] == before["totalKilled"] + 1
    assert after["active"] == before["active"]


async def test_status(client: Client) -> None:
    answer = await client.ask("status")
    assert answer["type"] == "status"
    assert answer["config"] == {
        "workspace": "/workspace",
        "sandboxMode": "none",
        "allowOpenClaw": False,
        "maxProcesses": 200,
    }
    assert set(answer["stats"]) == STATS


async def test_ping_tells_the_time(client: Client) -> None:
    answer = await client.ask("ping")
    assert answer["type"] == "pong"
    assert abs(answer["time"] - time.time() * 1000) < 5000


TWICE: list[dict[str, object]] = [
    {"type": "ping"},
    {"type": "detach", "pid": 7},
    {"type": "fsync", "operation": "pull"},
    {"type": "fsync", "operation": "push", "files": []},
    {"type": "fsync", "operation": "merge"},
]


@pytest.mark.parametrize("request_", TWICE, ids=str)
async def test_clients_of_1_0_get_some_answers_once_more_as_status(
    client: Client, request_: dict[str, object]
) -> None:
    """They have no handler for these three: without the second frame the request times out."""
    await client.send(None, **request_, id="x")
    first, second = await client.next(), await client.next()
    assert second == {**first, "type": "status"}
    assert first["id"] == "x"
    await client.send("list", id="y")
    assert (await client.next())["id"] == "y"


@pytest.mark.parametrize("request_", TWICE, ids=str)
async def test_newer_clients_get_one_answer(newer: Client, request_: dict[str, object]) -> None:
    await newer.send(None, **request_, id="x")
    await newer.send("list", id="y")
    assert [(await newer.next()).get("id") for _ in range(2)] == ["x", "y"]


@pytest.mark.parametrize("name", ["constructor", "toString", "__proto__", "hasOwnProperty", "valueOf"])
async def test_names_of_javascript_properties_are_unknown_types(client: Client, name: str) -> None:
    """The first server looked its handlers up in a plain object, and never answered these."""
    assert (await client.ask(name))["error"] == f"Unknown message type: {name}"
    answer = await client.ask("spawn", processType=name, command="")
    assert answer["error"] == f"Unknown process type: {name}"
    answer = await client.ask("fsync", operation=name)
    assert (answer["status"], answer["error"]) == ("error", f"Unknown operation: {name}")


async def test_texts_of_errors_are_those_of_1_0(client: Client) -> None:
    async def error(type_: str, **fields: object) -> str:
        answer = await client.ask(type_, **fields)
        assert answer["type"] == "error"
        return str(answer["error"])

    assert await error("attach", pid=99) == "Process 99 not found"
    assert await error("kill", pid=99, signal="SIGNOPE") == "Unknown signal: SIGNOPE"
    assert await error("spawn", processType="cobol", command="") == "Unknown process type: cobol"
    assert await error("spawn", command="") == "Unknown process type: undefined"
    assert await error("spawn", processType="openclaw") == "OpenClaw is not enabled in this runtime"


async def test_health(server: TestServer) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/health") as response:
        assert response.status == 200
        body = await response.json()
    assert body.keys() == {"status", "uptime", "processes"}
    assert (body["status"], set(body["processes"])) == ("ok", STATS)
    assert 0 <= body["uptime"] < 3600


async def test_kill_and_detach_answer_for_a_pid_that_is_not_there(client: Client) -> None:
    assert (await client.ask("kill", pid=99))["type"] == "killed"
    assert (await client.ask("detach", pid=99))["type"] == "detached"


async def test_what_names_a_pid_that_is_not_there_is_ignored(client: Client) -> None:
    await client.send("write", pid=99, data="x", id=1)
    await client.send("resize", pid=99, cols=80, rows=24, id=2)
    await client.send("ack", pid=99, offset=1, id=3)
    await client.quiet()
    assert len(client.seen) == 2
