"""The server's life, as its keeper sees it: one child and its channel."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from mhnos_runtime.channel import HIGH_WATER_MESSAGES, Channel, Message
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.keeper import ServerKeeper
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.loop import Loop
from tests.supervisor.harness import HELLO
from tests.supervisor.running import until
from tests.supervisor.test_nothing_left import crowded


def test_a_keeper_tries_again_from_time_to_time(tmp_path: Path) -> None:
    loop = Loop()
    sock, theirs = crowded()
    config = Config([], -1, tmp_path, 0, HELLO, False, [])
    keeper = ServerKeeper(loop, config, Log(False), lambda: None, lambda message: None, lambda: None)
    channel = Channel(sock)
    keeper.use(channel)
    with theirs, contextlib.closing(channel):
        sock.refusals = 3
        for number in range(5):
            keeper.send({"n": number})
        until(loop, lambda: not channel.pending)
        assert [json.loads(theirs.recv(100))["n"] for _ in range(5)] == list(range(5))
        assert sock.tries == 3 + 5
    loop.close()


def test_a_server_that_reads_nothing_is_not_asked_for_more(tmp_path: Path) -> None:
    """Its answers are kept for it, and it could ask without end."""
    loop, asked = Loop(), 0
    ours, theirs = Channel.pair()
    theirs.setblocking(False)

    def answer(_message: Message) -> None:
        nonlocal asked
        asked += 1
        keeper.send({"event": "refused", "message": "x" * 1000})

    def ask(rounds: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(b'{"do":"spawn"}')
        loop.after(0.001, (lambda: ask(rounds - 1)) if rounds else loop.stop)

    config = Config([], -1, tmp_path, 0, HELLO, False, [])
    keeper = ServerKeeper(loop, config, Log(False), lambda: None, answer, lambda: None)
    channel = Channel(ours)
    keeper.use(channel)
    with theirs, contextlib.closing(channel):
        ask(200)
        loop.run()
        assert HIGH_WATER_MESSAGES <= asked < HIGH_WATER_MESSAGES + 500
        while asked < HIGH_WATER_MESSAGES + 1000:  # it is heard again once it reads
            with contextlib.suppress(BlockingIOError):
                while theirs.recv(4096):
                    pass
            ask(2)
            loop.run()
    loop.close()
