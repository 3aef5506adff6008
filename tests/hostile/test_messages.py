"""A server that was taken over says anything to a real supervisor, over a real channel.

The supervisor lives, what runs runs on with its input and output, and a well-formed request is served.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.channel import encode
from mhnos_runtime.launch import Choice, LaunchPlan, Wish
from tests.hostile import odd
from tests.supervisor.harness import ENVIRONMENT, Seen, Server, Supervised, supervised, which

BATCH = 40
#: After so many rounds the next server is told everything.
RESTART = 15

PLAN = LaunchPlan(
    argv=(which("true"), "a"),
    env=ENVIRONMENT,
    pty=(80, 24),
    retention_bytes=4096,
    choice=Choice(Wish(open_files=200), "/tmp"),
    facts={"kind": "shell", "args": ["a", "b"], "name": None, "ports": [{"name": "http", "port": 80}]},
)
REFUSED = LaunchPlan(PLAN.argv, PLAN.env, choice=Choice(Wish("loopback"), engines=("/no/engines/a/1",)))


def good(dice: random.Random, pids: list[int]) -> list[dict[str, Any]]:
    """Messages as a server sends them, about processes that may be harmed."""
    pid = dice.choice([*pids, 0, 999, 5000])
    return [
        {
            "do": "spawn",
            "request": dice.randrange(1 << 40),
            "plan": dice.choice([PLAN, REFUSED]).to_request(),
        },
        {"do": "kill", "pid": pid, "signal": 15, "reason": "killed", "escalate": True},
        {"do": "close_stdin", "pid": pid},
        {"do": "size", "pid": pid, "columns": 80, "rows": 24},
        {"do": "note", "pid": pid, "found": {"ports": [{"name": "http", "port": 80}], "ready": {}}},
        {"do": "forget", "pid": pid},
        {"do": "discard", "pid": pid},
        {"do": "token", "token": {"digest": "x" * 64, "inode": 1}},
    ]


def message(dice: random.Random, pids: list[int]) -> bytes:
    if dice.random() < 0.05:
        # Not "A": who has said once that he lives has to go on saying so.
        return dice.choice([b"O", b"M", b"T", b"?", b"\0"]) + dice.randbytes(4)
    body: Any = dice.choice(good(dice, pids))
    try:
        for _ in range(dice.choice([0, 1, 1, 1, 2, 5])):
            body = odd.mutated(dice, body) if isinstance(body, dict | list) else odd.value(dice)
        data = encode(body) if dice.random() < 0.9 else json.dumps(body).encode()
    except RecursionError:  # nested deeper than Python 3.11 writes
        data = b'{"do":' + b"[" * 100_000
    return (odd.garbled(dice, data) if dice.random() < 0.2 else data)[: 200 * 1024]


def harms(data: bytes, survivor: int) -> bool:
    """Whether it asks, in due form, to end the one that is to survive."""
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(data)
        return (
            isinstance(body, dict)
            and body.get("pid") == survivor
            and body.get("do") in ("kill", "close_stdin", "discard")
        )
    return False


@contextlib.contextmanager
def various(tmp_path: Path) -> Iterator[list[int]]:
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    kinds = [
        os.open("/", os.O_PATH | os.O_DIRECTORY),
        os.open("/dev/null", os.O_RDWR),
        os.memfd_create("memory"),
        *(reader, writer, ours.detach(), theirs.detach()),
        os.open(tmp_path, os.O_RDONLY),
    ]
    yield kinds
    for fd in kinds:
        os.close(fd)


def chosen(dice: random.Random, kinds: list[int]) -> list[int]:
    """Mostly the folder alone, as it should be."""
    if dice.random() < 0.6:
        return kinds[:1]
    return dice.choices(kinds, k=dice.choice([0, 1, 2, 5, 26, 64]))


def speak(dice: random.Random, server: Server, survivor: int, kinds: list[int], said: list[str]) -> None:
    pids = [pid for pid in server.processes if pid != survivor]
    for _ in range(BATCH):
        data = message(dice, pids[-20:])
        if not data or harms(data, survivor):
            continue
        said.append(repr(data[:500]))
        server.send_raw(data, chosen(dice, kinds))
        server.pump(0)


def check(server: Server, survivor: Seen, number: int) -> None:
    """What runs goes on, and something new can be started."""
    word = b"word %d." % number
    survivor.write(word + b"\n")
    server.said(survivor, word)
    fresh = server.sh("exit 5")
    assert server.ended(fresh).code == 5
    for process in list(server.processes.values()):
        if process is survivor:
            continue
        if process.exit is None:
            server.kill(process, 9)
        else:
            server.ask("forget", process)
            process.close()
            del server.processes[process.pid]


@pytest.mark.timeout(0)
def test_a_supervisor_survives_whatever_its_server_says(
    tmp_path: Path, dice: random.Random, rounds: Iterator[int]
) -> None:
    said: collections.deque[str] = collections.deque(maxlen=2 * BATCH)
    with supervised(tmp_path) as supervisor, various(tmp_path) as kinds:
        server, survivor = start(supervisor)
        try:
            for number in rounds:
                speak(dice, server, survivor.pid, kinds, said)  # type: ignore[arg-type]  # it appends only
                check(server, survivor, number)
                if number % RESTART == RESTART - 1:
                    server = supervisor.serve_again()
                    survivor = server.processes[survivor.pid]
                    assert survivor.record.pty is None
            assert supervisor.popen.poll() is None
            assert "defect" not in supervisor.log
            assert "Traceback" not in supervisor.log
        except BaseException:
            print("the last messages:", *said, "the log:", supervisor.log[-5000:], sep="\n")
            raise


def start(supervisor: Supervised) -> tuple[Server, Seen]:
    server = supervisor.serve()
    return server, server.spawn("cat", facts={"name": "survivor"})
