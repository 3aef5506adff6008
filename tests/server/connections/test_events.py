"""The log of events: each client at its own pace, in order, each event once, and told of what it missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.server.auth.grants import Grant, Scope
from mhnos_runtime.server.connections import events as module
from mhnos_runtime.server.connections.events import EventLog, Subscription
from mhnos_runtime.server.connections.turns import Turns
from tests.server.connections.scene import Scene
from tests.server.processes.scene import Processes, turns


@pytest.fixture
def processes(tmp_path: Any) -> Any:
    made = Processes(tmp_path)
    yield made
    made.close()


#: Of a process that can be renamed.
KNOWN = msgspec.structs.replace(UNKNOWN, kind="shell")


class Reader:
    """A client that takes what there is when it is woken, or when it is told to."""

    def __init__(self, log: EventLog, sees: Callable[[int], bool] = lambda _pid: True) -> None:
        self.woken = 0
        self.subscription: Subscription = log.subscription(sees, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def read(self, most: int = 1 << 30) -> list[Any]:
        """(event, pid), or the count of those that were missed."""
        found: list[Any] = []
        while len(found) < most and (data := self.subscription.next()) is not None:
            message = json.loads(data)
            pid = message.get("process", {}).get("pid")
            found.append(message["count"] if message["event"] == "missed" else (message["event"], pid))
        return found


@pytest.fixture
async def log() -> EventLog:
    return EventLog(Turns(asyncio.get_running_loop()))


async def test_what_happens_is_told_from_the_subscription_on_in_order(
    log: EventLog, processes: Processes
) -> None:
    process, reader = processes.make(), Reader(log)
    log.tell("started", process, 1)
    reader.subscription.begin()
    log.tell("ready", process, 2)
    log.tell("ended", process, 3)
    assert reader.subscription
    assert reader.read() == [("ready", 1000), ("ended", 1000)]
    assert not reader.subscription
    assert reader.read() == []


async def test_a_second_subscription_of_a_client_changes_nothing(log: EventLog, processes: Processes) -> None:
    process, reader = processes.make(), Reader(log)
    reader.subscription.begin()
    log.tell("started", process, 1)
    for _ in range(1000):
        reader.subscription.begin()
    log.tell("ended", process, 2)
    await turns()
    assert reader.read() == [("started", 1000), ("ended", 1000)]
    assert reader.woken == 1


async def test_nothing_is_told_after_the_end_and_all_of_what_comes_after_a_new_beginning(
    log: EventLog, processes: Processes
) -> None:
    process, reader, other = processes.make(), Reader(log), Reader(log)
    reader.subscription.begin()
    other.subscription.begin()
    log.tell("started", process, 1)
    reader.subscription.end()
    log.tell("ready", process, 2)
    assert reader.read() == []
    reader.subscription.begin()
    log.tell("ended", process, 3)
    assert reader.read() == [("ended", 1000)]
    assert len(other.read()) == 3
    reader.subscription.end()
    reader.subscription.end()


async def test_a_client_wakes_once_for_many_events(log: EventLog, processes: Processes) -> None:
    process, reader = processes.make(), Reader(log)
    reader.subscription.begin()
    for _ in range(10):
        log.tell("ready", process, 1)
    await turns()
    assert reader.woken == 1
    log.tell("ended", process, 1)
    await turns()
    assert reader.woken == 2


async def test_a_grant_for_some_is_told_of_these_alone_and_not_of_how_many_others(
    log: EventLog, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 4000)
    mine, other, reader = processes.make(1000), processes.make(1001), Reader(log, lambda pid: pid == 1000)
    reader.subscription.begin()
    log.tell("started", other, 1)
    await turns()
    assert (reader.woken, reader.read()) == (0, [])
    log.tell("started", mine, 2)
    for _ in range(100):
        log.tell("renamed", other, 3)
    log.tell("ended", mine, 4)
    assert reader.read() == [1, ("ended", 1000)]
    for _ in range(100):
        log.tell("renamed", other, 3)
    log.tell("removed", mine, 5)
    assert reader.read() == [("removed", 1000)]


async def test_a_slow_client_is_told_how_many_it_missed_and_memory_is_bounded(
    log: EventLog, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 4000)
    process, slow, quick = processes.make(), Reader(log), Reader(log)
    slow.subscription.begin()
    quick.subscription.begin()
    told = 0
    for _ in range(100):
        log.tell("renamed", process, 1)
        told += 1
        assert len(quick.read()) == 1
    kept = told - log.oldest
    assert sum(len(log.get(number).data) for number in range(log.oldest, told)) <= 4000
    assert slow.read() == [told - kept, *[("renamed", 1000)] * kept]
    # And again, from the middle.
    log.tell("renamed", process, 1)
    assert slow.read() == [("renamed", 1000)]


async def test_nothing_is_kept_where_nobody_listens(log: EventLog, processes: Processes) -> None:
    process, reader = processes.make(), Reader(log)
    reader.subscription.begin()
    log.tell("started", process, 1)
    reader.subscription.end()
    assert log.oldest == 1


# On a connection


async def test_a_start_a_name_an_end_and_a_removal_are_told(scene: Scene) -> None:
    client = await scene.client()
    client.send("subscribe", id=1)
    await client.until("subscribed")
    program = scene.program(facts=KNOWN)
    client.send("rename", pid=1000, name="web")
    await client.until("renamed")
    program.end(3)
    client.send("remove", pid="web")
    await client.until("process", event="removed")
    events = client.of("process")
    assert [each["event"] for each in events] == ["started", "renamed", "ended", "removed"]
    assert [each["process"]["status"] for each in events] == ["running", "running", "exited", "exited"]
    assert [each["process"].get("name") for each in events] == [None, "web", "web", "web"]
    assert events[0]["time"] == 1
    assert events[2]["process"]["exit"]["code"] == 3
    assert events[2]["time"] == events[2]["process"]["exit"]["endTime"]


async def test_events_begin_behind_the_answer_also_where_that_has_to_wait(scene: Scene) -> None:
    """An answer waits for earlier ones, such as that to a kill, which waits for the end."""
    client, program = await scene.client(), scene.program()
    client.send("kill", id=1, pid=1000)
    client.send("subscribe", id=2)
    scene.program(1001)
    program.end()
    await client.until("subscribed")
    scene.program(1002)
    await client.until("process", event="started")
    assert client.types()[-3:] == ["killed", "subscribed", "process"]
    assert [each["process"]["pid"] for each in client.of("process")] == [1002]


async def test_no_event_follows_the_end_of_a_subscription(scene: Scene) -> None:
    client, program = await scene.client(), scene.program()
    for number in range(1000):
        client.send("subscribe", id=number)
    client.send("kill", id="kill", pid=1000)
    client.send("unsubscribe", id="end")
    await client.until("subscribed", 1000)
    program.end()
    await client.until("unsubscribed")
    scene.program(1001)
    await client.answered()
    assert [each["event"] for each in client.of("process")] == ["ended"]
    client.send("unsubscribe", id="again")
    await client.until("unsubscribed", 2)


async def test_a_client_that_does_not_read_misses_events_and_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 20_000)
    client = await scene.client()
    client.send("subscribe")
    await client.until("subscribed")
    client.transport.stall()
    program = scene.program(facts=KNOWN)
    for number in range(3000):
        scene.records.rename(program.process, f"name-{number}")
        if number % 10 == 0:
            await asyncio.sleep(0)
    client.transport.take()
    await client.answered()
    events = client.of("process")
    missed = [each["count"] for each in events if each["event"] == "missed"]
    assert missed
    assert sum(missed) + len(events) - len(missed) == 3001
    assert "process" not in next(each for each in events if each["event"] == "missed")
    assert events[-1]["process"]["name"] == "name-2999"


async def test_a_limited_grant_is_told_of_its_processes(scene: Scene) -> None:
    client = await scene.client(grant=Grant("some", frozenset({Scope.VIEW}), frozenset({1001})))
    client.send("subscribe")
    await client.until("subscribed")
    scene.program(1000)
    scene.program(1001)
    scene.program(1002)
    await client.until("process")
    await client.answered()
    assert [each["process"]["pid"] for each in client.of("process")] == [1001]


async def test_a_grant_that_has_ended_is_told_nothing(scene: Scene) -> None:
    client = await scene.client()
    client.send("subscribe")
    await client.until("subscribed")
    client.connection.end(1008)
    scene.program()
    await client.until_closed()
    assert not client.of("process")


async def test_no_subscription_outlives_its_connection(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has waited for a start begins as the connection breaks, whichever of the two comes first."""
    entered: set[Subscription] = set()
    enter, leave = EventLog.enter, EventLog.leave

    def noted_enter(log: EventLog, subscription: Subscription) -> int:
        entered.add(subscription)
        return enter(log, subscription)

    def noted_leave(log: EventLog, subscription: Subscription) -> None:
        entered.discard(subscription)
        leave(log, subscription)

    monkeypatch.setattr(EventLog, "enter", noted_enter)
    monkeypatch.setattr(EventLog, "leave", noted_leave)
    for late in range(-6, 7):
        client, start = await scene.client(), scene.starting.next()
        client.send("spawn", processType="shell", command="make")
        client.send("subscribe")
        await turns()
        program = scene.program(2000 + late)
        if late < 0:
            start.set_result(program.process)
        else:
            client.transport.abort()
        await turns(abs(late))
        if late < 0:
            client.transport.abort()
        else:
            start.set_result(program.process)
        await client.running
        await turns()
        assert not entered, late
