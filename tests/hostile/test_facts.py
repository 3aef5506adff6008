"""A program writes anything to its control socket, on which it tells where it listens.

What is kept of it stays within what a record has room for, can be shown, and another program is heard as
before.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime import bounds
from mhnos_runtime.channel import encode
from mhnos_runtime.launch import ProcessRecord
from mhnos_runtime.output import LogReader, LogWriter
from mhnos_runtime.process.facts import Found, ProcessFacts
from mhnos_runtime.process.ready import Readiness
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.connections import shown
from mhnos_runtime.server.processes.readiness import Watchers
from mhnos_runtime.wire import encode as wire
from mhnos_runtime.wire import messages as m
from tests.hostile import damage, odd
from tests.output.clock import holds_of

GOOD = {"event": "listen", "socket": "http", "port": 8080}


def line(dice: random.Random) -> bytes:
    body: Any = {**GOOD, "port": dice.randrange(1, 65536)}
    if dice.random() < 0.6:
        body["socket"] = dice.choice([f"s{dice.randrange(200)}", '"' * 128, "ü" * 64, "\\" * 128, "x" * 129])
    if dice.random() < 0.5:
        body = odd.mutated(dice, body)
    data = json.dumps(body, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return (odd.garbled(dice, data) if dice.random() < 0.2 else data) + b"\n"


def told(dice: random.Random) -> bytes:
    """Everything that one program says."""
    return b"".join(line(dice) for _ in range(dice.choice([1, 3, 30, 300])))


class Programs:
    """Processes that are watched, of which the test holds the control sockets."""

    def __init__(self, path: Path) -> None:
        LogWriter.create(path, 0).close()
        self.log = path
        self.watchers = Watchers(asyncio.get_running_loop(), self.note)
        self.noted = asyncio.Event()

    def note(self, process: Process, found: Found) -> None:
        self.noted.set()
        process.facts = process.facts.with_found(found)
        assert len(encode(found.to_plain())) <= bounds.FOUND_BYTES
        assert ProcessFacts.decode(process.facts.to_plain()) == process.facts
        wire.encode(m.ProcessList([shown.describe(process)], m.ServerStats(0, 0, 0)))

    def start(self, pid: int) -> tuple[Process, socket.socket]:
        watch = {**damage.FACTS["watch"], "line": "", "events": True}
        ready = {"state": "starting", "reason": ""}
        facts = {**damage.FACTS, "ports": [], "watch": watch, "ready": ready}
        reader = LogReader(os.open(self.log, os.O_RDWR))
        record = ProcessRecord(pid, os.getpid(), 2**52, None, facts)
        process = Process(record, reader, None, holds_of(reader), ProcessFacts.decode(facts))
        ours, theirs = socket.socketpair()
        self.watchers.begin(process, theirs.detach())
        ours.setblocking(False)
        return process, ours

    def end(self, process: Process, sock: socket.socket) -> None:
        sock.close()
        self.watchers.ended(process.pid)
        process.close()


async def say(sock: socket.socket, data: bytes, dice: random.Random) -> None:
    """In pieces, for as long as it is listened to."""
    view = memoryview(data)
    for _ in range(2000):
        if not view:
            return
        try:
            view = view[sock.send(view[: dice.choice([1, 50, 5000, 100_000])]) :]
        except BlockingIOError:
            await asyncio.sleep(0)


@pytest.mark.timeout(0)
async def test_a_control_socket_says_anything(
    tmp_path: Path, dice: random.Random, rounds: Iterator[int]
) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    programs = Programs(tmp_path / "log")
    for number in rounds:
        wild, wild_end = programs.start(2 * number)
        good, good_end = programs.start(2 * number + 1)
        data = told(dice)
        try:
            await say(wild_end, data, dice)
            good_end.send(json.dumps(GOOD).encode() + b"\n")
            async with asyncio.timeout(20):
                while good.facts.ready != Readiness("ready"):
                    programs.noted.clear()
                    await programs.noted.wait()
            programs.end(wild, wild_end)
            programs.end(good, good_end)
            assert [port.port for port in good.facts.ports] == [8080]
            assert failures == []
        except BaseException:
            print("what was said:", repr(data[:5000]), failures, sep="\n")
            raise
