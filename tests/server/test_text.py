"""Text of 1.0 out of bytes in any pieces: no character is ever split, on any stream, at any offset."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import OUTPUT, Client, Message, connect

pytestmark = pytest.mark.asyncio(loop_scope="module")

Script = Callable[[str], str]

WORDS = "aé€😀" * 3 + "\n"

#: Every byte is its own write, and waits for the server to have read it: a line of input follows each byte.
SLOWLY = f"""
import sys, os
for byte in {WORDS.encode()!r}:
    os.write(1, bytes([byte]))
    os.read(0, 1)
"""
INTERLEAVED = f"""
import os
for byte in {WORDS.encode()!r}:
    for stream in (1, 2):
        os.write(stream, bytes([byte]))
        os.read(0, 1)
"""


async def feed(client: Client, pid: int, times: int) -> None:
    """Let the program write its bytes, each when the one before has been captured."""
    for number in range(times):
        while True:
            rows = (await client.ask("list"))["processes"]
            if next(row["nextOffset"] for row in rows if row["pid"] == pid) > number:
                break
        await client.send("write", pid=pid, data="x")


def texts(messages: list[Message], pid: int) -> dict[str, str]:
    return {
        stream: "".join(m["data"] for m in messages if m["type"] == stream and m.get("pid") == pid)
        for stream in OUTPUT
    }


@pytest.mark.parametrize("pty", [True, False])
async def test_characters_split_between_reads_come_whole(client: Client, script: Script, pty: bool) -> None:
    """They became U+FFFD: one for each piece."""
    prelude = "import tty; tty.setraw(0)\n" if pty else ""
    pid = await client.spawn("python", script(prelude + SLOWLY), pty=pty)
    await feed(client, pid, len(WORDS.encode()))
    await client.exit(pid)
    frames = [m for m in client.seen if m["type"] == "stdout"]
    assert "".join(m["data"] for m in frames) == WORDS
    assert len(frames) > 1
    assert frames[-1]["next"] == len(WORDS.encode())


async def test_streams_that_cut_into_each_others_characters(client: Client, script: Script) -> None:
    pid = await client.spawn("python", script(INTERLEAVED))
    await feed(client, pid, 2 * len(WORDS.encode()))
    await client.exit(pid)
    assert texts(client.seen, pid) == {"stdout": WORDS, "stderr": WORDS}


async def test_attaching_at_any_next_loses_and_doubles_nothing(
    server: TestServer, client: Client, script: Script
) -> None:
    """What was carried at that offset is restored from the bytes before it."""
    pid = await client.spawn("python", script(INTERLEAVED))
    await feed(client, pid, 2 * len(WORDS.encode()))
    await client.exit(pid)
    frames = [m for m in client.seen if m["type"] in OUTPUT]
    async with connect(server) as other:
        for number, frame in enumerate(frames):
            start = len(other.seen)
            await other.ask("attach", pid=pid, **{"from": frame["next"]})
            await other.exit(pid)
            before, after = texts(frames[: number + 1], pid), texts(other.seen[start:], pid)
            assert {stream: before[stream] + after[stream] for stream in OUTPUT} == texts(frames, pid)


async def test_what_stays_incomplete_is_marked_at_the_end(client: Client) -> None:
    pid = await client.run(r"printf 'ab\303'; printf '\360\237\230' >&2")
    await client.exit(pid)
    assert texts(client.seen, pid) == {"stdout": "ab\ufffd", "stderr": "\ufffd"}


async def test_bytes_that_are_no_text_are_marked_and_binary_clients_get_them(
    client: Client, newer: Client
) -> None:
    pid = await client.run(r"printf '\377a\300\257'")
    await client.exit(pid)
    assert client.output(pid) == "\ufffda\ufffd\ufffd"
    await newer.ask("attach", pid=pid)
    assert [m["data"] for m in newer.seen if m["type"] == "stdout"] == [b"\xffa\xc0\xaf"]


async def test_a_pair_of_surrogates_split_between_two_writes(client: Client, script: Script) -> None:
    """JavaScript hands emoji over in halves when a paste is cut."""
    pid = await client.spawn("python", script("print(ascii(input()), flush=True)"))
    await client.socket.send_str(f'{{"type":"write","pid":{pid},"data":"a\\ud83d"}}')
    await client.socket.send_str(f'{{"type":"write","pid":{pid},"data":"\\ude00b\\ud83d!\\r"}}')
    await client.exit(pid)
    assert client.output(pid) == r"'a\U0001f600b\ufffd!'" + "\n"


async def test_text_typed_into_a_terminal_comes_back_whole(client: Client) -> None:
    pid = await client.spawn("shell", "cat")
    for character in "aé€😀":
        await client.send("write", pid=pid, data=character)
    await client.send("write", pid=pid, data="\r\x04")
    await client.exit(pid)
    assert client.output(pid) == "aé€😀\r\naé€😀\r\n"


async def test_streams_keep_their_order(client: Client, script: Script) -> None:
    """stdout and stderr share one log: what was captured first is sent first, live and replayed."""
    source = "import os\nfor n in range(50):\n os.write(1 + n % 2, f'{n} '.encode()); os.read(0, 1)"
    pid = await client.spawn("python", script(source))
    for number in range(50):
        await client.text(pid, f"{number} ")
        await client.send("write", pid=pid, data="x")
    await client.exit(pid)
    expected = "".join(f"{n} " for n in range(50))
    assert client.output(pid) == expected
    start = len(client.seen)
    await client.ask("attach", pid=pid)
    assert client.output(pid, start) == expected
    names = [m["type"] for m in client.seen[start:] if m["type"] in OUTPUT]
    assert names == ["stdout", "stderr"] * 25
