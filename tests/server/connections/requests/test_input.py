"""Requests to type, to end the input, to number it and to set a size."""

from __future__ import annotations

import asyncio
import os
import pty
import termios

import pytest

from mhnos_runtime.process.input import InputQueue
from tests.server.connections.scene import Client, Scene


async def test_what_is_written_is_typed(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    client.send("write", pid=1000, data="ä\r")
    assert program.typed() == "ä\n".encode()
    assert client.types() == ["connected"]


async def test_a_write_to_what_is_not_there_is_ignored(scene: Scene) -> None:
    client = await scene.client()
    client.send("write", pid=5, data="x")
    client.send("resize", pid=5, cols=5, rows=5)
    assert client.types() == ["connected"]


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "no input"])
async def test_a_write_that_is_lost_is_answered(scene: Scene, ended: bool) -> None:
    program, client = scene.program(reads=ended), await scene.client()
    if ended:
        program.end()
    client.send("write", pid=1000, data="x", id=1)
    error = client.seen()[-1]
    assert (error["code"], error["pid"], error["id"]) == ("input-closed", 1000, 1)


async def test_closing_the_input_comes_after_what_was_written(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    client.send("write", pid=1000, data="last")
    client.send("closeStdin", pid=1000, id=1)
    client.send("closeStdin", pid=1000, id=2)
    assert [message["id"] for message in client.of("stdinClosed")] == [1, 2]
    assert (program.typed(), program.typed()) == (b"last", b"")
    assert scene.link.called == [("close_stdin", 1000)]


async def test_closing_the_input_of_what_is_not_there(scene: Scene) -> None:
    client = await scene.client()
    client.send("closeStdin", pid=5)
    client.send("openInput", pid=5, client="x")
    assert [message["code"] for message in client.of("error")] == ["unknown-process"] * 2


async def test_numbered_input_goes_on_where_the_last_connection_was(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    client.send("openInput", pid=1000, client="one", id=1)
    assert client.seen()[-1] == {"type": "inputOpened", "pid": 1000, "next": 0, "id": 1}
    client.type(1000, b"abc", 0)
    assert client.seen()[-1] == {"type": "inputAck", "pid": 1000, "next": 3}
    await client.vanish()
    again: Client = await scene.client()
    again.send("openInput", pid=1000, client="one")
    again.type(1000, b"bcde", 1)
    assert [message["next"] for message in again.of("inputOpened", "inputAck")] == [3, 5]
    assert program.typed() == b"abcde"


async def test_what_a_killed_server_left_uncertain_is_told(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    left = program.process.numbered().open("one", 1)
    left.begin(5)
    left.uncertain_from = 0
    client.send("openInput", pid=1000, client="one")
    assert client.seen()[-1] == {"type": "inputOpened", "pid": 1000, "next": 5, "uncertainFrom": 0}


async def test_a_size_is_set_and_the_supervisor_told(scene: Scene) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    program, client = scene.program(pty=(80, 24)), await scene.client()
    assert program.process.input is not None
    program.process.input.close()
    program.process.input = InputQueue(master, asyncio.get_running_loop())
    try:
        client.send("resize", pid=1000, cols=100, rows=30)
        assert termios.tcgetwinsize(slave) == (30, 100)
        assert scene.link.called == [("size", 1000, 100, 30)]
        client.send("resize", pid=1000, cols=0, rows=30)
        assert client.seen()[-1]["code"] == "invalid-argument"
    finally:
        os.close(slave)
