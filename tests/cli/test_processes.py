"""Waiting for ends over a connection that tells them late, twice, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest

from mhnos_runtime.cli.processes import Ends, end_within, found_running
from mhnos_runtime.client.errors import RequestFailed, RequestTimedOut
from mhnos_runtime.wire import messages as m


def row(pid: int, code: int | None = None) -> m.ProcessInfo:
    ended = None if code is None else m.ExitInfo(code, None, "exit", "", 1, 1, None, 0, 1)
    return m.ProcessInfo(pid, "shell", "", [], 0, "running", exit=ended)


def told(event: str, process: m.ProcessInfo) -> m.ProcessEvent:
    return m.ProcessEvent(event, 1, process)  # type: ignore[arg-type]


class Runtime:
    """What a blocking connection says, in order; then nothing more. processes: as inspect shows them."""

    def __init__(self, events: Iterable[m.Message], processes: Iterable[m.ProcessInfo] = ()) -> None:
        self.events = list(events)
        self.processes = {each.pid: each for each in processes}
        self.sent: list[m.Message] = []

    def ask(self, message: m.Message, answer: type[Any]) -> Any:
        self.sent.append(message)
        if isinstance(message, m.Inspect):
            if message.pid not in self.processes:
                raise RequestFailed("not found", code="unknown-process")
            return m.Inspected(self.processes[message.pid])
        return answer(message.pid) if isinstance(message, m.Kill) else answer()

    def send(self, message: m.Message) -> None:
        self.sent.append(message)

    def receive(self, timeout_s: float | None = None) -> Any:
        if not self.events:
            raise RequestTimedOut("nothing")
        return self.events.pop(0)


def ends(runtime: Runtime) -> Ends:
    return Ends(cast(Any, runtime))


def test_an_end_is_told_once_and_remembered() -> None:
    runtime = Runtime([told("started", row(1)), told("ended", row(2, 5)), told("ended", row(1, 4))], [row(1)])
    seen = ends(runtime)
    assert seen.of(1).code == 4
    assert (ended := seen.wait(2)) is not None
    assert ended.code == 5
    assert isinstance(runtime.sent[0], m.Subscribe), "before anything is looked for"


def test_an_end_among_events_that_were_dropped_is_looked_for() -> None:
    missed = m.ProcessEvent("missed", 1, count=7)
    runtime = Runtime([missed], [row(1, 3)])
    ended = ends(runtime).wait(1)
    assert ended is not None
    assert ended.code == 3


def test_what_was_refused_is_raised_where_it_is_waited_for() -> None:
    refused = m.ErrorMessage("no", code="forbidden")
    with pytest.raises(RequestFailed, match="no"):
        ends(Runtime([m.Killed(1), refused])).wait(1)


def test_only_the_late_ones_are_killed() -> None:
    runtime = Runtime([told("ended", row(1, 0))])
    end_within(cast(Any, runtime), ends(runtime), [1, 2], 0.0)
    kills = [each for each in runtime.sent if isinstance(each, m.Kill)]
    assert [(each.pid, each.signal, each.escalate) for each in kills] == [(2, "SIGKILL", True)]


def test_what_has_ended_does_not_run() -> None:
    runtime = cast(Any, Runtime([], [row(1), row(2, 0)]))
    assert found_running(runtime, 1).pid == 1
    for pid in (2, 3):
        with pytest.raises(RequestFailed):
            found_running(runtime, pid)
