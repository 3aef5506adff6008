"""What the log tells of starts and ends, and that no client fills it with them."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LINES_A_MINUTE, Limiter
from mhnos_runtime.server.processes.lifelog import LifeLog
from mhnos_runtime.testing import TestServer
from tests.server.client import connect
from tests.server.processes.scene import Processes, ended
from tests.supervisor.harness import eventually


class Log:
    """now_s: the clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.stream = io.StringIO()
        self.handler = logs.setup("info", "json", self.stream)
        self.life = LifeLog(logs.get("server"), Limiter(lambda: self.now_s))

    @property
    def lines(self) -> list[dict[str, Any]]:
        kept = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [{name: line[name] for name in line if name not in ("ts", "logger", "level")} for line in kept]


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    logging.getLogger().removeHandler(made.handler)


def test_a_start_and_its_end_say_what_how_and_for_whom(log: Log, processes: Processes) -> None:
    named = processes.make(1000, kind="shell", name="ticker")
    plain = processes.make(1001, kind="python")
    log.life.started(named, "operator")
    log.life.started(plain, "token:ann")
    log.life.ended(named, replace(ended(), code=None, signal="SIGTERM", reason="killed"), "token:ann")
    log.life.ended(plain, replace(ended(code=3), runtime_ms=1500), "")
    assert log.lines == [
        {"msg": "process started", "process": 1000, "kind": "shell", "name": "ticker", "by": "operator"},
        {"msg": "process started", "process": 1001, "kind": "python", "by": "token:ann"},
        {
            "msg": "process ended",
            "process": 1000,
            "kind": "shell",
            "name": "ticker",
            "reason": "killed",
            "signal": "SIGTERM",
            "by": "token:ann",
            "seconds": 0.001,
        },
        {
            "msg": "process ended",
            "process": 1001,
            "kind": "python",
            "reason": "exit",
            "code": 3,
            "seconds": 1.5,
        },
    ]


def test_many_starts_make_few_lines_and_no_start_without_its_end(log: Log, processes: Processes) -> None:
    """A client that starts a thousand programs a minute wrote 500 MB a day."""
    made = [processes.make(pid) for pid in range(1000, 1000 + LINES_A_MINUTE + 5)]
    for each in made:
        log.life.started(each, "operator")
    for each in made:
        log.life.ended(each, ended(), "")
    pids = {
        what: [line["process"] for line in log.lines if line["msg"] == what]
        for what in ("process started", "process ended")
    }
    assert pids["process started"] == pids["process ended"] == list(range(1000, 1000 + LINES_A_MINUTE))
    log.now_s += 60
    for pid in (2000, 2001):
        log.life.started(processes.make(pid), "operator")
    assert [line.get("unreported") for line in log.lines[-2:]] == [5, None]


def test_what_ran_before_the_server_is_followed_to_its_end(log: Log, processes: Processes) -> None:
    process = processes.make(1000)
    log.life.found(process)
    log.life.ended(process, ended(), "")
    log.life.ended(process, ended(), "")
    assert [line["msg"] for line in log.lines] == ["process ended"]


def test_a_name_makes_no_long_line(log: Log, processes: Processes) -> None:
    log.life.started(processes.make(1000, name="x" * 1024), "operator")
    assert len(log.stream.getvalue()) < 400


async def test_a_day_of_a_server(tmp_path: Any) -> None:
    """Connections are for debugging; what runs is the operator's to know."""
    async with TestServer(tmp_path) as server:
        async with connect(server) as client:
            pid = await client.run("exit 3", attach=False)
            other = await client.run("sleep 600", attach=False, name="ticker")
            last = await client.run("sleep 600", attach=False)
            await client.ask("kill", pid=other)
        eventually(lambda: ended_in(server, pid), "the end of what ended by itself")
        await server.stop()
        said = [json.loads(line) for line in server.log.read_text().splitlines()]
    what = [(line["msg"], line.get("process")) for line in said]
    assert not [line for line in said if "client" in line["msg"]]
    for each in (pid, other, last):
        assert what.index(("process started", each)) < what.index(("process ended", each))
    ends = {line["process"]: line for line in said if line["msg"] == "process ended"}
    assert (ends[pid]["reason"], ends[pid]["code"]) == ("exit", 3)
    assert (ends[other]["reason"], ends[other]["signal"], ends[other]["name"], ends[other]["by"]) == (
        "killed",
        "SIGTERM",
        "ticker",
        "operator",
    )
    assert "by" not in ends[last]
    assert [line["msg"] for line in said if line["logger"] == "supervisor"] == ["stopping", "stopped"]


async def test_an_end_without_a_server_is_told_by_the_supervisor(tmp_path: Any) -> None:
    async with TestServer(tmp_path) as server:
        async with connect(server) as client:
            pid = await client.run("echo $$; read line", attach=False)
            os_pid = (await client.ask("list"))["processes"][-1]["osPid"]
        # Stopped, so that it cannot start another server before the process has ended.
        os.kill(server.pid, signal.SIGSTOP)
        server_pid = server.server_pid()
        os.kill(server_pid, signal.SIGKILL)
        proc = Path(f"/proc/{server_pid}")

        def has_ended() -> bool:
            """With all its threads: its sockets are open until the last one has gone."""
            state = (proc / "stat").read_bytes().rpartition(b") ")[2][:1]
            return state == b"Z" and len(list((proc / "task").iterdir())) == 1

        eventually(has_ended, "the server's end")
        os.kill(os_pid, signal.SIGKILL)
        os.kill(server.pid, signal.SIGCONT)
        eventually(lambda: ended_in(server, pid), "the end")


def ended_in(server: TestServer, pid: int) -> bool:
    said = [json.loads(line) for line in server.log.read_text().splitlines()]
    return ("process ended", pid) in [(line["msg"], line.get("process")) for line in said]
