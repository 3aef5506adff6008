"""What 1.1 adds to watching and typing: offsets, gaps, binary frames, sizes, pipes, the end of input."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect, joined
from tests.server.conftest import server_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

Script = Callable[[str], str]

KIB = 1024
TOTAL = 300 * KIB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    """One that keeps little."""
    async with server_in(tmp_path_factory.mktemp("attach"), "--retention-bytes", "64k") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def long(newer: Client, script: Script) -> int:
    """An ended process that wrote more than is kept."""
    source = f"""
import hashlib, os
data = hashlib.shake_128(b"x").digest({TOTAL})
while data: data = data[os.write(1, data):]
"""
    pid = await newer.spawn("python", script(source))
    await newer.exit(pid)
    assert joined(newer.seen, pid, 0) == content()
    return pid


def content() -> bytes:
    return hashlib.shake_128(b"x").digest(TOTAL)


async def test_negotiating(server: TestServer, newer: Client) -> None:
    assert newer.socket.protocol == "mhnos.v1.1"
    assert newer.hello["protocol"] == "1.1"
    assert newer.hello["limits"]["retentionBytes"] == 64 * KIB
    async with connect(server, protocols=("chat", "mhnos.v1.1", "mhnos.v2")) as client:
        assert client.socket.protocol == "mhnos.v1.1"
    async with connect(server, protocols=("chat",)) as client:
        assert client.socket.protocol is None


async def test_binary_frames_both_ways(newer: Client, script: Script) -> None:
    """Every byte value, unchanged: neither line ends nor characters are touched."""
    pid = await newer.spawn(
        "python", script("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read(512)[::-1])")
    )
    data = bytes(range(256)) * 2
    for part in (data[:1], data[1:300], data[300:]):
        await newer.type(pid, part)
    await newer.exit(pid)
    assert joined(newer.seen, pid, 0) == data[::-1]
    assert not any(m["replay"] for m in newer.seen if m.get("binary"))


async def test_output_frames_are_at_most_64_kib(newer: Client, long: int) -> None:
    assert all(len(m["data"]) <= 64 * KIB for m in newer.seen if m.get("binary"))


async def test_from_the_kept_start(newer: Client, long: int) -> None:
    """What came before it is told as missing: it was left out without a word."""
    for asked in ({}, {"from": "start"}):
        start = len(newer.seen)
        answer = await newer.ask("attach", pid=long, **asked)
        first = answer["from"]
        assert TOTAL - 128 * KIB <= first < TOTAL - 32 * KIB
        [gap] = [m for m in newer.seen[start:] if m["type"] == "gap"]
        assert (gap["from"], gap["to"]) == (0, first)
        assert answer["next"] == TOTAL
        output = [m for m in newer.seen[start:] if m["type"] != "gap"]
        assert joined(output, long, first) == content()[first:]
        assert all(m["replay"] for m in newer.seen[start:] if m.get("binary"))
        process = answer["process"]
        assert first <= process["firstOffset"]
        assert process["nextOffset"] == TOTAL
        await newer.exit(long)


async def test_from_the_end(newer: Client, long: int) -> None:
    start = len(newer.seen)
    answer = await newer.ask("attach", pid=long, **{"from": "end"})
    assert (answer["from"], answer["next"]) == (TOTAL, TOTAL)
    assert joined(newer.seen[start:], long, TOTAL) == b""


@pytest.mark.parametrize("tail", [0, 1, 5000, 10**9])
async def test_the_last_bytes(newer: Client, long: int, tail: int) -> None:
    start = len(newer.seen)
    answer = await newer.ask("attach", pid=long, tail=tail)
    first = answer["from"]
    assert first == max(answer["process"]["firstOffset"], TOTAL - tail)
    assert joined(newer.seen[start:], long, first) == content()[first:]


async def test_from_an_offset(newer: Client, long: int) -> None:
    for offset in (TOTAL - 40_000, TOTAL - 1, TOTAL):
        start = len(newer.seen)
        answer = await newer.ask("attach", pid=long, **{"from": offset})
        assert answer["from"] == offset
        assert joined(newer.seen[start:], long, offset) == content()[offset:]


@pytest.mark.parametrize("offset", [0, 1, 100_000])
async def test_what_is_no_longer_kept_is_a_gap_with_its_exact_range(
    newer: Client, long: int, offset: int
) -> None:
    """Never skipped silently: the first server dropped the oldest lines and said nothing."""
    start = len(newer.seen)
    answer = await newer.ask("attach", pid=long, **{"from": offset})
    came = newer.seen[start:]
    [gap] = [message for message in came if message["type"] == "gap"]
    assert (gap["pid"], gap["from"]) == (long, offset)
    assert not any(message.get("binary") for message in came[: came.index(gap)])
    # What was reserved for the writer's last burst may still be there below the first promised byte.
    assert gap["to"] == answer["from"] <= answer["process"]["firstOffset"]
    assert joined([m for m in came if m is not gap], long, gap["to"]) == content()[gap["to"] :]


async def test_an_offset_beyond_the_end_is_an_error(newer: Client, long: int) -> None:
    answer = await newer.ask("attach", pid=long, **{"from": TOTAL + 1})
    assert (answer["type"], answer["code"]) == ("error", "invalid-argument")


@pytest.mark.parametrize(
    "bad", [{"from": -1}, {"from": "middle"}, {"from": 1.5}, {"tail": -1}, {"tail": "x"}]
)
async def test_a_start_that_is_none_is_an_error_and_changes_nothing(
    client: Client, bad: dict[str, object]
) -> None:
    pid = await client.run("read x; echo got $x")
    answer = await client.ask("attach", pid=pid, **bad)
    assert (answer["type"], answer["code"]) == ("error", "invalid-argument")
    await client.send("write", pid=pid, data="it\r")
    await client.exit(pid)
    assert client.output(pid) == "got it\n"


async def test_attached_comes_between_what_was_there_and_what_comes_after(
    server: TestServer, script: Script
) -> None:
    source = "import os\nwhile True: os.write(1, b'x' * 1000)"
    async with connect(server, newer=True) as client:
        pid = await client.spawn("python", script(source), attach=False)
        for _ in range(20):
            answer = await client.ask("attach", pid=pid)
            frames = [m for m in client.seen if m.get("binary")]
            assert all(m["replay"] and m["next"] <= answer["next"] for m in frames)
            # The flood may overtake an attach to the oldest byte before it holds that; then that is told.
            gaps = [m["to"] for m in client.seen if m["type"] == "gap"]
            client.seen.clear()
            assert (await client.until("stdout", pid=pid))["replay"] is False
            gaps += [m["to"] for m in client.seen if m["type"] == "gap"]
            assert client.seen[-1]["offset"] == max([answer["next"], *gaps])
            await client.ask("detach", pid=pid)
            client.seen.clear()
        await client.ask("kill", pid=pid)


async def test_text_frames_have_offsets_too(client: Client) -> None:
    pid = await client.run("printf 'é1'; read x; printf 2; read x")
    await client.text(pid, "1")
    await client.send("write", pid=pid, data="\r")
    await client.text(pid, "2")
    frames = [m for m in client.seen if m["type"] == "stdout"]
    assert [(m["offset"], m["next"]) for m in frames] == [(0, 3), (3, 4)]
    await client.ask("kill", pid=pid)


# Spawning


async def test_not_attached_when_it_was_not_asked_for(client: Client) -> None:
    pid = await client.run("echo hi; read x; exit 0", attach=False)
    await client.quiet()
    assert client.output(pid) == ""
    await client.ask("attach", pid=pid)
    await client.text(pid, "hi\n")
    await client.ask("kill", pid=pid)


async def test_a_terminal_of_any_size_for_any_kind(client: Client, script: Script) -> None:
    source = "import os, sys; print(os.get_terminal_size(), sys.stdin.isatty())"
    pid = await client.spawn("python", script(source), pty={"cols": 77, "rows": 11})
    await client.exit(pid)
    assert client.output(pid) == "os.terminal_size(columns=77, lines=11) True\r\n"
    pid = await client.spawn("python", script(source), pty=True)
    await client.exit(pid)
    assert "columns=100, lines=30" in client.output(pid)


async def test_pipes_for_a_shell(client: Client) -> None:
    pid = await client.spawn("shell", "test -t 0 || echo pipes; echo err >&2", pty=False)
    await client.exit(pid)
    assert [m["data"] for m in client.seen if m["type"] == "stdout"] == ["pipes\n"]
    assert [m["data"] for m in client.seen if m["type"] == "stderr"] == ["err\n"]


@pytest.mark.parametrize("pty", [{"cols": 0, "rows": 1}, {"cols": 80}, "yes", {"cols": 2001, "rows": 10}])
async def test_a_size_that_is_none(client: Client, pty: object) -> None:
    answer = await client.ask("spawn", processType="shell", pty=pty)
    assert (answer["type"], answer["code"]) == ("error", "invalid-argument")


async def test_a_terminal_gets_the_size_of_who_still_shows_it(
    client: Client, other: Client, newer: Client
) -> None:
    pid = await client.spawn("shell", "read x", pty={"cols": 50, "rows": 5})

    async def size() -> tuple[int, int]:
        [row] = [row for row in (await client.ask("list"))["processes"] if row["pid"] == pid]
        return row["pty"]["cols"], row["pty"]["rows"]

    await client.send("resize", pid=pid, cols=60, rows=6)
    await newer.ask("attach", pid=pid)
    await newer.send("resize", pid=pid, cols=70, rows=7)
    await newer.ask("ping")
    assert await size() == (70, 7)
    await newer.ask("detach", pid=pid)
    assert await size() == (60, 6)
    await newer.send("resize", pid=pid, cols=70, rows=7)
    await newer.ask("ping")
    await newer.socket.close()
    while await size() != (60, 6):
        pass  # the server notices the end of a connection when it comes to it
    await client.send("write", pid=pid, data="\r")
    await client.exit(pid)


async def test_the_record_tells_a_late_client_everything(client: Client, other: Client) -> None:
    pid = await client.spawn(
        "shell", "read x; exit 9", name="mine", pty={"cols": 50, "rows": 5}, options={"cwd": "/"}
    )
    await client.send("resize", pid=pid, cols=60, rows=6)
    row = (await client.ask("attach", pid=pid))["process"]
    assert (row["name"], row["cwd"], row["pty"], row["sandbox"]) == (
        "mine",
        "/",
        {"cols": 60, "rows": 6},
        "none",
    )
    assert (row["viewers"], row["exit"], row["status"]) == (1, None, "running")
    assert row["osPid"] > 1
    await client.send("write", pid=pid, data="\r")
    await client.exit(pid)
    assert pid not in [r["pid"] for r in (await other.ask("list"))["processes"]]
    [row] = [r for r in (await other.ask("list", all=True))["processes"] if r["pid"] == pid]
    assert (row["status"], row["osPid"], row["viewers"]) == ("exited", None, 0)
    exit_ = row["exit"]
    assert (exit_["code"], exit_["signal"], exit_["reason"]) == (9, None, "exit")
    assert exit_["bytes"] == row["nextOffset"]
    assert exit_["runtimeMs"] >= 0
    assert exit_["endTime"] >= row["startTime"]


# End of input


async def test_closing_stdin_of_pipes_comes_after_what_was_written(newer: Client) -> None:
    """Also when more is waiting than a pipe holds."""
    pid = await newer.run("read x; wc -c")
    data = b"x\n" + b"y" * 500_000
    await newer.type(pid, data)
    assert (await newer.ask("closeStdin", pid=pid))["type"] == "stdinClosed"
    assert (await newer.ask("closeStdin", pid=pid))["type"] == "stdinClosed"
    await newer.send("write", pid=pid, data="late")
    error = await newer.until("error")
    assert (error["code"], error["pid"]) == ("input-closed", pid)
    # It may have ended before the error came.
    assert (await newer.text(pid, "500000")).strip() == "500000"


async def test_closing_stdin_of_a_terminal_types_the_end_of_file(client: Client) -> None:
    pid = await client.spawn("shell", "cat; echo after")
    await client.send("write", pid=pid, data="line\r")
    await client.text(pid, "line\r\nline\r\n")
    assert (await client.ask("closeStdin", pid=pid))["type"] == "stdinClosed"
    await client.exit(pid)
    assert client.output(pid).endswith("after\r\n")


async def test_several_viewers_text_and_binary_each_at_its_own_place(
    client: Client, other: Client, newer: Client, script: Script
) -> None:
    source = """
import os
for n in range(2000): os.write(1, f"{n}é\\n".encode())
os.read(0, 1)
os.write(1, b"end")
"""
    pid = await client.spawn("python", script(source))
    expected = "".join(f"{n}é\n" for n in range(2000))
    await client.text(pid, expected)
    await other.ask("attach", pid=pid, tail=100)
    await newer.ask("attach", pid=pid, **{"from": 50})
    await client.send("write", pid=pid, data="x")
    for each in (client, other, newer):
        await each.exit(pid)
    assert client.output(pid) == expected + "end"
    assert (expected + "end").endswith(other.output(pid))
    # A character that the tail cuts in two comes whole: at most three bytes more than were asked for.
    assert len(other.output(pid).encode()) in range(103, 107)
    assert joined(newer.seen, pid, 50) == (expected + "end").encode()[50:]


async def test_stats(client: Client, script: Script) -> None:
    pid = await client.spawn("python", script("print('up', flush=True); input()"))
    await client.until("stdout")  # before, the kernel is between two programs, and has no memory to tell of
    [row] = (await client.ask("stats", pid=pid))["processes"]
    assert row["pid"] == pid
    assert row["rssBytes"] > 500_000
    assert row["tasks"] >= 1
    assert row["cpuMs"] >= 0
    assert pid in [row["pid"] for row in (await client.ask("stats"))["processes"]]
    answer = await client.ask("stats", pid=99)
    assert (answer["type"], answer["code"]) == ("error", "unknown-process")
    await client.ask("kill", pid=pid)
    assert (await client.ask("stats", pid=pid))["processes"] == []
