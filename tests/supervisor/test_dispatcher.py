"""What a server says is given to whom it concerns, whatever becomes of it; what came with it is closed."""

from __future__ import annotations

import json
import os
from typing import Any, cast

import pytest

from mhnos_runtime.channel import MOVED, TYPED, Message, encode
from mhnos_runtime.errors import LimitReached, MhnosError
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.supervisor.archive import Ended
from mhnos_runtime.supervisor.defects import Defects
from mhnos_runtime.supervisor.dispatcher import Dispatcher
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.process import Process

PLAN = LaunchPlan(("/bin/true",), {})
SPAWN = {"do": "spawn", "request": 7, "plan": json.loads(encode(PLAN.to_request()))}


class Capture:
    def __init__(self, done: list[Any]) -> None:
        self.resume = lambda: done.append("resume")
        self.typed = lambda: done.append("typed")


class Seen(Process):
    """A process that notes what is done with it, or raises."""

    def __init__(self, done: list[Any], error: Exception | None = None) -> None:
        self.done = done
        self.error = error
        self.capture = cast("Any", Capture(done))

    def end(self, number: int, reason: str, escalate: bool = True) -> None:
        if self.error is not None:
            raise self.error
        self.done.append(("end", number, reason, escalate))

    def close_stdin(self) -> None:
        self.done.append("close_stdin")

    def resized(self, columns: int, rows: int) -> None:
        self.done.append(("resized", columns, rows))

    def note(self, found: dict[str, Any]) -> None:
        self.done.append(("note", found))


class Scene:
    """Is the table too. raises: what its spawn does."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.raises: Exception | None = None
        ended = Ended.__new__(Ended)
        processes: dict[int, Process | Ended] = {
            1000: Seen(self.done),
            1001: ended,
            1002: Seen(self.done, ZeroDivisionError("on purpose")),
        }
        log = Log(False)
        defects = Defects(log, lambda pid, defect: self.done.append((pid, defect)))
        self.dispatcher = Dispatcher(processes, defects, log, self)

    def spawn(self, request: int, plan: LaunchPlan, descriptors: list[int]) -> None:
        if self.raises is not None:
            raise self.raises
        assert all(map(os.fstat, descriptors))
        self.done.append(("spawn", request, plan))

    def refuse(self, request: int, error: MhnosError) -> None:
        self.done.append(("refuse", request, error.code))

    def forget(self, pid: int) -> None:
        self.done.append(("forget", pid))

    def discard(self, pid: int) -> None:
        self.done.append(("discard", pid))

    def keep_token(self, token: dict[str, Any] | None) -> None:
        self.done.append(("token", token))

    def says(self, **body: Any) -> list[Any]:
        """What is done then. A pipe comes with it, and is closed."""
        reader, writer = os.pipe()
        self.done.clear()
        self.dispatcher.on_message(Message(b"", 0, body, [reader]))
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
        os.close(writer)
        return self.done


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(
    ("body", "done"),
    [
        (
            {"do": "kill", "signal": 15, "reason": "idle", "escalate": False, "pid": 1000},
            ("end", 15, "idle", False),
        ),
        ({"do": "close_stdin", "pid": 1000}, "close_stdin"),
        ({"do": "size", "columns": 80, "rows": 24, "pid": 1000}, ("resized", 80, 24)),
        ({"do": "note", "found": {"a": 1}, "pid": 1000}, ("note", {"a": 1})),
        ({"do": "forget", "pid": 5}, ("forget", 5)),
        ({"do": "discard", "pid": 5}, ("discard", 5)),
        ({"do": "token", "token": None}, ("token", None)),
        (SPAWN, ("spawn", 7, PLAN)),
    ],
)
def test_each_request_is_given_to_whom_it_concerns(scene: Scene, body: dict[str, Any], done: Any) -> None:
    assert scene.says(**body) == [done]


def test_what_is_found_out_about_an_ended_process_is_noted_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be renamed, also by the next runtime."""
    monkeypatch.setattr(Ended, "note", lambda self, found: scene.done.append(("ended", found)))
    assert scene.says(do="note", found={"name": "web"}, pid=1001) == [("ended", {"name": "web"})]
    assert scene.says(do="note", found={"name": "web"}, pid=5) == []


@pytest.mark.parametrize("pid", [1001, 5])
def test_what_is_for_a_process_that_has_ended_or_never_was_is_nothing(scene: Scene, pid: int) -> None:
    assert scene.says(do="close_stdin", pid=pid) == []
    for kind in (MOVED, TYPED):
        scene.dispatcher.on_message(Message(kind, pid, {}, []))
    assert scene.done == []


def test_each_notice_is_given_to_its_process(scene: Scene) -> None:
    for kind in (MOVED, TYPED, b"?"):
        scene.dispatcher.on_message(Message(kind, 1000, {}, []))
    assert scene.done == ["resume", "typed"]


def test_what_makes_no_sense_is_refused_where_somebody_waits(scene: Scene) -> None:
    assert scene.says(do="dance") == []
    assert scene.says(do="spawn", request=9, plan={}) == [("refuse", 9, "invalid-argument")]


def test_a_defect_costs_the_process_it_belongs_to(scene: Scene) -> None:
    (failed,) = scene.says(do="kill", signal=15, reason="idle", escalate=False, pid=1002)
    assert failed[0] == 1002
    assert failed[1].startswith("ZeroDivisionError: on purpose at test_dispatcher.py:")


def test_a_start_is_answered_whatever_it_raises(scene: Scene) -> None:
    scene.raises = LimitReached("no more", code="too-many-processes")
    assert scene.says(**SPAWN) == [("refuse", 7, "too-many-processes")]
    scene.raises = ZeroDivisionError("on purpose")
    assert scene.says(**SPAWN) == [("refuse", 7, "internal")]
