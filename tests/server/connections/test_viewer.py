"""One client's view of a process, frame by frame: replay, gaps, characters, facts, the exit, and its hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from mhnos_runtime.launch import STDERR, STDOUT
from mhnos_runtime.output import NO_HOLD, Chunk
from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.process.ready import Port, Readiness, Watch
from mhnos_runtime.server.connections.viewer import Frame, TextEncoding, Viewer, text_frame
from mhnos_runtime.wire import frames
from tests.server.connections.scene import RETENTION_BYTES, Program, Scene

STARTING = msgspec.structs.replace(UNKNOWN, watch=Watch(), ready=Readiness("starting"))


@pytest_asyncio.fixture
async def program(scene: Scene) -> AsyncIterator[Program]:
    yield scene.program()


def view(program: Program, start: int = 0, **options: Any) -> Viewer:
    options = {"binary": True, "wake": lambda _viewer: None, **options}
    viewer = Viewer(program.process, start, **options)
    program.process.viewers[viewer] = viewer.wake
    return viewer


def shown(frame: Frame) -> Any:
    """Binary: (stream, replay, offset, bytes); texts: the message without its pid."""
    if frame.binary:
        got = frames.unpack(frame.head + frame.body)
        name = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}[got.kind]
        return name, bool(got.flags & frames.REPLAY), got.offset, bytes(got.payload)
    message = json.loads(frame.head + frame.body)
    assert message.pop("pid") == 1000
    return message


def all_of(viewer: Viewer) -> list[Any]:
    """What it hands out until it sleeps or has finished."""
    return [shown(frame) for frame in iter(viewer.next_frame, None)]


def texts(viewer: Viewer) -> list[tuple[str, str]]:
    return [(message["type"], message["data"]) for message in all_of(viewer)]


# Replay


async def test_a_replay_ends_where_it_was_said_to(program: Program) -> None:
    """Also where there is more by then: that is live output."""
    program.write(b"old")
    replayed: list[int] = []
    viewer = view(program, on_replayed=lambda viewer: replayed.append(viewer.replay_end))
    program.write(b"new")
    assert shown(viewer.next_frame() or text_frame(b"")) == {"type": "replay", "from": 0, "to": 3}
    assert shown(viewer.next_frame() or text_frame(b"")) == ("stdout", True, 0, b"old")
    assert replayed == []
    assert all_of(viewer) == [("stdout", False, 3, b"new")]
    assert replayed == [3]


async def test_where_nothing_was_there_a_replay_is_over_at_once(program: Program) -> None:
    replayed: list[Viewer] = []
    viewer = view(program, on_replayed=replayed.append)
    assert (all_of(viewer), replayed) == ([], [viewer])


async def test_a_replay_that_is_overrun_ends_with_the_gap(program: Program) -> None:
    program.write(b"x" * 100)
    replayed: list[Viewer] = []
    viewer = view(program, on_replayed=replayed.append)
    program.process.holds.close()
    program.process.log.set_hold(NO_HOLD)
    program.write(b"y" * (4 * RETENTION_BYTES))
    tail = program.process.log.tail
    found = all_of(viewer)
    assert found[:2] == [{"type": "replay", "from": 0, "to": 100}, {"type": "gap", "from": 0, "to": tail}]
    assert replayed == [viewer]
    assert {replay for _stream, replay, _offset, _data in found[2:]} == {False}
    assert b"".join(data for *_, data in found[2:]) == b"y" * (4 * RETENTION_BYTES + 100 - tail)


async def test_who_asks_for_no_replay_gets_none(program: Program) -> None:
    program.write(b"old")
    assert all_of(view(program)) == [("stdout", False, 0, b"old")]


async def test_a_drop_ends_a_replay_and_hands_out_nothing_more(program: Program) -> None:
    program.write(b"old")
    replayed: list[Viewer] = []
    viewer = view(program, on_replayed=replayed.append)
    viewer.put_back(text_frame(b"{}"))
    viewer.drop(vanished=False)
    assert (viewer.next_frame(), viewer.finished, viewer.gone.is_set()) == (None, True, True)
    assert replayed == [viewer]
    assert program.process.log.hold == NO_HOLD
    viewer.drop(vanished=True)
    assert (replayed, program.clock.waiting) == ([viewer], 0)


async def test_what_is_put_back_comes_again_first(program: Program) -> None:
    program.write(b"1")
    program.write(b"2", STDERR)
    viewer = view(program)
    first = viewer.next_frame()
    assert first is not None
    viewer.put_back(first)
    assert [data for *_, data in all_of(viewer)] == [b"1", b"2"]


# Waking


async def test_it_sleeps_at_the_head_and_is_woken_by_the_next_byte(program: Program) -> None:
    woken: list[Viewer] = []
    viewer = view(program, wake=woken.append)
    assert (viewer.next_frame(), viewer.lag) == (None, 0)
    program.write(b"1")
    assert (woken, viewer.lag) == ([viewer], 1)
    assert all_of(viewer) == [("stdout", False, 0, b"1")]


async def test_what_comes_while_it_falls_asleep_is_not_missed(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the head and `park`, where the writer sees nobody who wants to be woken."""
    log, viewer = program.process.log, view(program)
    park = type(log).park

    def late(self: Any, offset: int) -> bool:
        monkeypatch.setattr(type(log), "park", park)
        program.writer.append(b"1", STDOUT, 1)
        return park(self, offset)

    monkeypatch.setattr(type(log), "park", late)
    assert all_of(viewer) == [("stdout", False, 0, b"1")]


# Holds


async def test_it_holds_what_it_has_not_handed_out(program: Program) -> None:
    program.write(b"12345")
    viewer = view(program, 2)
    assert program.process.log.hold == 2
    all_of(viewer)
    assert program.process.log.hold == 5


@pytest.mark.parametrize(
    ("acknowledged", "held"), [([2], 2), ([2, 1], 2), ([99], 5), ([2, 99, 0], 5), ([0], 0)], ids=str
)
async def test_it_holds_what_its_client_has_not_used(
    program: Program, acknowledged: list[int], held: int
) -> None:
    """No acknowledgement goes back, or beyond what was handed out."""
    program.write(b"12345")
    viewer = view(program, acknowledges=True)
    all_of(viewer)
    assert program.process.log.hold == 0
    for offset in acknowledged:
        viewer.acknowledge(offset)
    program.write(b"6")
    assert program.process.log.hold == held


async def test_an_acknowledgement_of_what_was_not_handed_out_counts_as_far_as_it_was(
    program: Program,
) -> None:
    program.write(b"12345")
    viewer = view(program, acknowledges=True)
    viewer.acknowledge(5)
    assert program.process.log.hold == 0


async def test_one_that_vanishes_is_waited_for_and_one_that_leaves_is_not(program: Program) -> None:
    for vanished, waiting in ((False, 0), (True, 1)):
        view(program).drop(vanished)
        assert program.clock.waiting == waiting


async def test_an_overrun_is_told_and_no_longer_held(program: Program) -> None:
    viewer = view(program)
    program.process.log.set_hold(NO_HOLD)
    program.write(b"x" * (4 * RETENTION_BYTES))
    tail = program.process.log.tail
    assert shown(viewer.next_frame() or text_frame(b"")) == {"type": "gap", "from": 0, "to": tail}
    assert program.process.log.hold == tail
    assert len(b"".join(data for *_, data in all_of(viewer))) == 4 * RETENTION_BYTES - tail


# Text


async def test_a_character_comes_with_the_bytes_that_complete_it(program: Program) -> None:
    viewer = view(program, binary=False)
    for byte in "aä€😀".encode():
        program.write(bytes([byte]))
    assert [message["data"] for message in all_of(viewer)] == ["aä€😀"]
    found = []
    for byte in "aä€😀".encode():
        program.write(bytes([byte]))
        found += texts(viewer)
    assert found == [("stdout", "a"), ("stdout", "ä"), ("stdout", "€"), ("stdout", "😀")]


async def test_streams_have_their_own_characters(program: Program) -> None:
    viewer = view(program, binary=False)
    first, second = "ä".encode()[:1], "ä".encode()[1:]
    for data, stream in ((first, STDOUT), (first, STDERR), (second, STDERR), (second, STDOUT)):
        program.write(data, stream)
    assert texts(viewer) == [("stderr", "ä"), ("stdout", "ä")]


async def test_a_view_from_the_middle_of_a_character_completes_it(program: Program) -> None:
    program.write("😀!".encode())
    for start in range(1, 5):
        assert texts(view(program, start, binary=False)) == [("stdout", "😀!" if start < 4 else "!")]


async def test_half_a_character_in_front_of_a_gap_or_the_end_is_shown_as_such(
    scene: Scene, program: Program
) -> None:
    viewer = view(program, binary=False)
    program.write("ä".encode()[:1])
    assert all_of(viewer) == []
    program.process.log.set_hold(NO_HOLD)
    program.write(b"x" * (4 * RETENTION_BYTES))
    tail = program.process.log.tail
    found = all_of(viewer)
    assert found[0] == {"type": "stdout", "data": "\ufffd", "offset": 1, "next": 1}
    assert found[1] == {"type": "gap", "from": 1, "to": tail}
    program.write(b"\xe2\x82", STDERR)
    program.end()
    assert [message["type"] for message in all_of(viewer)] == ["stderr", "exit"]


async def test_only_what_is_replayed_has_a_time(program: Program) -> None:
    program.write(b"old", now_ms=5)
    viewer = view(program, binary=False, on_replayed=lambda _viewer: None)
    program.write(b"new", now_ms=6)
    assert [message.get("timestamp") for message in all_of(viewer)] == [5, None]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=5), st.sampled_from([STDOUT, STDERR])), max_size=8), st.data())
def test_text_joins_to_what_decoding_the_whole_gives(
    parts: list[tuple[str, int]], data: st.DataObject
) -> None:
    """However the bytes of both streams are cut."""
    process: Any = SimpleNamespace(pid=1000, log=SimpleNamespace(before=lambda *_: b""))
    encoding, offset = TextEncoding(process, 0), 0
    found = {"stdout": "", "stderr": ""}
    for text, stream in parts:
        raw = text.encode()
        at = data.draw(st.integers(0, len(raw)))
        for piece in filter(None, (raw[:at], raw[at:])):
            frame = encoding.chunk(Chunk(offset, stream, piece, 1), replay=False)
            offset += len(piece)
            if frame is not None:
                message = shown(frame)
                assert message["next"] == offset
                found[message["type"]] += message["data"]
    assert encoding.rest(offset) == []
    for name, number in (("stdout", STDOUT), ("stderr", STDERR)):
        assert found[name] == "".join(text for text, stream in parts if stream == number)


# Facts


def news(program: Program, viewer: Viewer, **changes: Any) -> list[Any]:
    program.process.facts = msgspec.structs.replace(program.process.facts, **changes)
    return all_of(viewer)


async def test_news_of_readiness_and_ports_come_once_and_ports_first(program: Program) -> None:
    program.process.facts = STARTING
    viewer = view(program)
    assert [message["type"] for message in all_of(viewer)] == ["ready"]
    port = Port("http", 80, "127.0.0.1")
    assert news(program, viewer) == []
    found = news(program, viewer, ports=(port,), ready=Readiness("failed", "why"))
    assert [message["type"] for message in found] == ["ports", "ready"]
    assert (found[1]["state"], found[1]["reason"]) == ("failed", "why")
    assert news(program, viewer, linger_ms=5) == []
    assert news(program, viewer, ready=None, watch=None) == []


async def test_facts_that_came_with_the_answer_are_no_news(program: Program) -> None:
    program.process.facts = STARTING
    viewer = view(program, on_replayed=lambda _viewer: None)
    assert all_of(viewer) == []
    assert [message["type"] for message in news(program, viewer, ready=Readiness("ready"))] == ["ready"]


async def test_news_wait_for_the_end_of_a_replay(program: Program) -> None:
    program.write(b"old")
    told: list[Callable[[], None]] = []
    viewer = view(program, on_replayed=lambda _viewer: told.append(lambda: None))
    viewer.next_frame()
    program.process.facts = STARTING
    assert all_of(viewer) == [("stdout", True, 0, b"old")]
    assert len(told) == 1


async def test_a_client_of_1_0_hears_no_news(program: Program) -> None:
    viewer = view(program, binary=False)
    assert news(program, viewer, watch=Watch(), ready=Readiness("ready")) == []


# The exit


@pytest.mark.parametrize("binary", [True, False])
async def test_the_exit_comes_last_and_once(program: Program, binary: bool) -> None:
    viewer = view(program, binary=binary)
    program.write(b"last")
    program.end(code=3)
    *_, ended = all_of(viewer)
    assert (ended["type"], ended["code"], ended["bytes"], viewer.finished) == ("exit", 3, 4, True)
    assert all_of(viewer) == []


async def test_an_end_before_it_served_is_called_what_its_kind_says(program: Program) -> None:
    viewer = view(program)
    program.process.facts = msgspec.structs.replace(STARTING, early_exit="script-error")
    program.end(code=1)
    assert all_of(viewer)[-1]["failure"] == "script-error"
