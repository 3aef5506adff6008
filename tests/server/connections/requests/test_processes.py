"""Requests about processes: what is started for whom, what becomes of it, and what is shown."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mhnos_runtime.errors import InvalidRequest, StartFailed
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.process.facts import UNKNOWN, Secrets
from mhnos_runtime.process.table import Process
from mhnos_runtime.sandbox import Isolation
from mhnos_runtime.server.auth.grants import EVERYTHING
from mhnos_runtime.server.connections.requests.processes import ENDING_SIGNALS, signal_number
from tests.server.connections.scene import Scene, turns_until

ISOLATION = Isolation("strict", "none", 5, ("pid",), 3, True, {"tasks": "5"}, False)


async def test_what_is_started_is_watched_from_its_first_byte(scene: Scene) -> None:
    client, start = await scene.client(), scene.starting.next()
    client.send("spawn", id=1)
    program = scene.program()
    program.write(b"first")
    start.set_result(program.process)
    assert (await client.until("stdout"))["data"] == b"first"
    assert client.types() == ["connected", "spawned", "stdout"]
    assert client.of("stdout")[0]["replay"] is False


@pytest.mark.parametrize("acks", [True, False])
async def test_a_spawn_says_whether_its_client_acknowledges(scene: Scene, acks: bool) -> None:
    client, start = await scene.client(), scene.starting.next()
    client.send("spawn", acks=acks)
    program = scene.program()
    start.set_result(program.process)
    await client.until("spawned")
    program.write(b"123")
    await client.until("stdout")
    assert program.process.log.hold == (0 if acks else 3)


async def test_what_is_started_for_nobody_to_watch_lingers(scene: Scene) -> None:
    client, start = await scene.client(), scene.starting.next()
    client.send("spawn", attach=False)
    program = scene.program(facts=_lingering())
    start.set_result(program.process)
    await client.until("spawned")
    await _ended_idle(scene, 1000)
    assert program.process.viewers == {}


async def test_a_start_that_fails_is_answered(scene: Scene) -> None:
    client, start = await scene.client(), scene.starting.next()
    client.send("spawn", id=1)
    start.set_exception(StartFailed("there is none", hint="look for one"))
    error = await client.until("error", id=1)
    assert (error["error"], error["code"]) == ("there is none", StartFailed.code)
    await client.answered()


# A client that leaves while a process is started for it


class Left:
    """That client has left, and the process is not there yet. reported: what the event loop was told of."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.start = scene.starting.next()
        self.reported: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.reported.append(context))

    async def leave(self) -> asyncio.Task[Any]:
        """Gives the start, which goes on."""
        client = await self.scene.client()
        before = asyncio.all_tasks()
        client.send("spawn")
        await turns_until(lambda: bool(self.scene.starting.asked))
        await client.vanish()
        [starting] = asyncio.all_tasks() - before
        return starting


async def test_what_was_started_for_one_who_has_left_is_watched_by_nobody(scene: Scene) -> None:
    left = Left(scene)
    starting = await left.leave()
    program = scene.program(facts=_lingering())
    left.start.set_result(program.process)
    await starting
    await _ended_idle(scene, 1000)
    assert program.process.viewers == {}


async def test_a_start_that_fails_for_one_who_has_left_is_no_defect(scene: Scene) -> None:
    left = Left(scene)
    starting = await left.leave()
    left.start.set_exception(StartFailed("x"))
    await asyncio.gather(starting, return_exceptions=True)
    await asyncio.sleep(0)
    assert left.reported == []


async def test_a_server_that_ends_during_a_start_reports_no_defect(scene: Scene) -> None:
    """Its loop cancels what is under way, and that was logged as an exception in a callback."""
    left = Left(scene)
    starting = await left.leave()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await asyncio.sleep(0)
    assert left.reported == []


# Signals


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"signal": "TERM"}, (signal.SIGTERM, True)),
        ({"signal": "SIGKILL"}, (signal.SIGKILL, True)),
        ({"signal": "9"}, (signal.SIGKILL, False)),
        ({"signal": "INT"}, (signal.SIGINT, False)),
        ({"signal": "TERM", "escalate": False}, (signal.SIGTERM, False)),
        ({"signal": "USR1", "escalate": True}, (signal.SIGUSR1, True)),
    ],
    ids=str,
)
async def test_signals_that_mean_an_end_escalate(
    scene: Scene, request_fields: dict[str, Any], expected: tuple[int, bool]
) -> None:
    program, client = scene.program(), await scene.client()
    client.send("kill", pid=1000, id=1, **request_fields)
    number, escalates = expected
    assert scene.link.called == [("kill", 1000, number, "killed", escalates)]
    # Where it is followed by stronger ones, the answer waits for the end.
    assert ("killed" in client.types()) is not escalates
    program.end()
    await client.until("killed", id=1)


async def test_the_exit_comes_before_the_answer_to_a_kill(scene: Scene) -> None:
    """Clients of 1.0 forget the pid with the answer. Here the exit waits for a client that reads slowly."""
    program, client = scene.program(), await scene.client(newer=False)
    client.send("attach", pid=1000)
    client.send("kill", pid=1000, signal="TERM")
    client.transport.stall()
    program.write(b"x" * (64 << 10))
    program.write(b"y" * (64 << 10))
    program.end()
    for _ in range(5):
        await asyncio.sleep(0)
    assert "killed" not in client.types()
    client.transport.take()
    await client.until("killed")
    assert client.types()[-2:] == ["exit", "killed"]


async def test_who_detaches_meanwhile_is_answered_too(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    client.send("attach", pid=1000)
    client.send("kill", pid=1000, signal="TERM")
    client.send("detach", pid=1000)
    program.end()
    await client.until("detached")
    assert client.types()[-2:] == ["killed", "detached"]


async def test_a_kill_of_what_is_not_there_is_done(scene: Scene) -> None:
    client = await scene.client()
    client.send("kill", pid=5, signal="TERM", id=1)
    assert client.seen()[-1] == {"type": "killed", "pid": 5, "id": 1}
    client.send("kill", pid=5, signal="NONSENSE")
    assert client.seen()[-1]["code"] == "unknown-signal"


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15"])
def test_a_signal_has_three_names(name: str) -> None:
    assert signal_number(name) == signal.SIGTERM


@pytest.mark.parametrize(
    "name", ["", "SIG", "term", "0", "65", "999999999999999999999", "²", "-9", "SIG_DFL"]
)
def test_what_is_no_signal(name: str) -> None:
    with pytest.raises(InvalidRequest, match="Unknown signal"):
        signal_number(name)


def test_signals_that_end_are_signals() -> None:
    assert all(signal_number(name) for name in ENDING_SIGNALS)


# What is shown


async def test_a_list_has_what_runs_and_on_request_what_has_ended(scene: Scene) -> None:
    scene.program(1000)
    scene.program(1001).end()
    client = await scene.client()
    client.send("list")
    client.send("list", all=True)
    shown = [[process["pid"] for process in answer["processes"]] for answer in client.of("processList")]
    assert shown == [[1000], [1000, 1001]]
    assert client.of("processList")[0]["stats"] == {"totalSpawned": 2, "totalKilled": 1, "active": 1}


async def test_a_list_has_what_the_grant_shows(scene: Scene) -> None:
    for pid in (1000, 1001):
        scene.program(pid)
    client = await scene.client(grant=replace(EVERYTHING, processes=frozenset({1001})))
    client.send("list", all=True)
    assert [process["pid"] for process in client.of("processList")[0]["processes"]] == [1001]


async def test_what_is_used_is_measured_of_those_that_run_and_may_be_seen(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test itself stands for one of them; one is gone before it is looked at."""
    for pid in (1000, 1001, 1002):
        scene.program(pid)
    scene.program(1003).end()
    gone: Process = scene.programs[1].process
    gone.record = replace(gone.record, os_pid=os.getpid() + (1 << 23))
    client = await scene.client(grant=replace(EVERYTHING, processes=frozenset({1000, 1001, 1003})))
    client.send("stats", id=1)
    rows = (await client.until("processStats", id=1))["processes"]
    assert [row["pid"] for row in rows] == [1000, 1001]
    assert rows[0]["tasks"] >= 1
    assert (rows[1]["cpuMs"], rows[1]["rssBytes"], rows[1]["tasks"]) == (None, None, None)
    client.send("stats", pid=1003, id=2)
    assert (await client.until("processStats", id=2))["processes"] == []


async def test_a_token_is_shown_to_who_may_control_the_process(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    program.process.facts = _facts(secrets=Secrets("t0ken"))
    client.send("credentials", pid=1000, id=1)
    assert client.seen()[-1] == {"type": "credentialsAnswer", "pid": 1000, "token": "t0ken", "id": 1}


async def test_a_plan_is_shown_with_what_it_is_kept_from(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await scene.client()
    facts = _facts(cwd="/sub", isolation=ISOLATION)
    launch = LaunchPlan(argv=("/bin/true",), env={"A": "b"}, facts=facts.to_plain())
    monkeypatch.setattr(scene.starting, "plan", lambda _request: launch, raising=False)
    client.send("plan", processType="shell", id=1)
    [answer] = client.of("planned")
    assert (answer["directory"], answer["isolation"]["network"], answer["id"]) == ("/sub", "none", 1)
    assert answer["plan"]["argv"] == ["/bin/true"]
    assert "facts" not in answer["plan"]


async def test_a_plan_without_isolation_is_a_defect(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await scene.client()
    launch = LaunchPlan(argv=(), env={}, facts=UNKNOWN.to_plain())
    monkeypatch.setattr(scene.starting, "plan", lambda _request: launch, raising=False)
    client.send("plan")
    assert client.types()[-1] == "close frame"
    assert "a plan without its isolation" in caplog.text


async def test_the_config_of_a_worker_is_answered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await scene.client()
    monkeypatch.setattr(scene.starting, "worker_config", lambda request: request.command, raising=False)
    client.send("workerConfig", command="/x.js", id=1)
    assert client.seen()[-1]["id"] == 1
    assert "/x.js" in client.seen()[-1].values()


def _facts(**changes: Any) -> Any:
    return msgspec.structs.replace(UNKNOWN, **changes)


def _lingering() -> Any:
    return _facts(linger_ms=0)


async def _ended_idle(scene: Scene, pid: int) -> None:
    await turns_until(lambda: ("kill", pid, signal.SIGTERM, "idle", True) in scene.link.called)
