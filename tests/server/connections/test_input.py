"""What one client types: halves of characters, binary frames, and numbered input over all that goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.output.layout import INPUT_SLOTS
from mhnos_runtime.process.input import MAX_QUEUED_BYTES
from mhnos_runtime.server.connections.input import Input
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.server.connections.scene import Scene


class Typist:
    """One client's input. told: acknowledgements; failed: codes of errors."""

    def __init__(self, scene: Scene, sees: Callable[[int], bool] = lambda _pid: True) -> None:
        self.told: list[tuple[int, int]] = []
        self.failed: list[tuple[str, Any]] = []
        self.input = Input(
            scene.terminals, lambda pid: scene.table.get(pid) if sees(pid) else None, self._tell, self._fail
        )

    def _tell(self, message: m.Message) -> None:
        assert isinstance(message, m.InputAck)
        self.told.append((message.pid, message.next))

    def _fail(self, message: m.Message) -> None:
        assert isinstance(message, m.ErrorMessage)
        assert isinstance(message.code, str)
        self.failed.append((message.code, message.pid))

    def type(self, data: bytes, offset: int | None = None, pid: int = 1000, kind: int = frames.INPUT) -> None:
        flags = 0 if offset is None else frames.NUMBERED
        self.input.take(frames.DataFrame(kind, flags, pid, offset or 0, memoryview(data)))


# Text


async def test_half_a_character_waits_for_its_other_half(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.input.write(program.process, "a\ud83d")
    assert program.typed() == b"a"
    one.input.write(program.process, "\ude00")
    assert program.typed() == "😀".encode()


async def test_halves_of_one_process_do_not_meet_those_of_another(scene: Scene) -> None:
    first, second, one = scene.program(1000), scene.program(1001), Typist(scene)
    one.input.write(first.process, "\ud83d")
    one.input.write(second.process, "\ude00")
    assert (first.typed(), second.typed()) == (b"", "\ufffd".encode())


async def test_enter_is_one_line_end_on_a_pipe_and_itself_on_a_terminal(scene: Scene) -> None:
    pipe, terminal, one = scene.program(1000), scene.program(1001, pty=(80, 24)), Typist(scene)
    for program in (pipe, terminal):
        for text in ("a\r", "\n", "\r\n"):
            one.input.write(program.process, text)
    assert (pipe.typed(), terminal.typed()) == (b"a\n\n", b"a\r\n\r\n")


async def test_what_is_refused_is_refused_whole(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.input.write(program.process, "x" * MAX_QUEUED_BYTES)
    with pytest.raises(LimitReached):
        one.input.write(program.process, "y" * MAX_QUEUED_BYTES)
    assert await program.read(MAX_QUEUED_BYTES) == b"x" * MAX_QUEUED_BYTES
    one.input.write(program.process, "z")
    assert program.typed() == b"z"


# Binary frames


async def test_a_frame_is_typed_as_it_is(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.type(b"\xff\r\n")
    assert (program.typed(), one.failed) == (b"\xff\r\n", [])


@pytest.mark.parametrize("pid", [5, 1001], ids=["not there", "not to be seen"])
async def test_a_frame_for_what_is_not_there_is_ignored_unless_it_is_numbered(scene: Scene, pid: int) -> None:
    """The answer does not tell which it is."""
    hidden = scene.program(1001)
    one = Typist(scene, lambda pid: pid != 1001)
    one.type(b"x", pid=pid)
    assert one.failed == []
    one.type(b"x", 0, pid=pid)
    assert one.failed == [("not-negotiated", pid)]
    assert hidden.typed() == b""


@pytest.mark.parametrize("kind", [frames.STDOUT, frames.STDERR])
async def test_a_client_sends_no_output(scene: Scene, kind: int) -> None:
    program, one = scene.program(), Typist(scene)
    one.type(b"x", kind=kind)
    assert [code for code, _pid in one.failed] == ["invalid-message"]
    assert program.typed() == b""


async def test_a_frame_that_is_lost_is_answered(scene: Scene) -> None:
    scene.program().end()
    one = Typist(scene)
    one.type(b"x")
    assert one.failed == [("input-closed", 1000)]


# Numbered input


async def test_numbers_have_to_be_opened_on_this_connection(scene: Scene) -> None:
    program, one, other = scene.program(), Typist(scene), Typist(scene)
    other.input.number(program.process, "other")
    one.type(b"x", 0)
    assert (one.failed, program.typed()) == ([("not-negotiated", 1000)], b"")


async def test_each_byte_is_typed_once_however_often_it_comes(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.input.number(program.process, "one")
    for data, offset in ((b"abc", 0), (b"abc", 0), (b"bcd", 1), (b"", 4), (b"", 0), (b"abcdef", 0)):
        one.type(data, offset)
    assert program.typed() == b"abcdef"
    assert one.told == [(1000, typed) for typed in (3, 3, 4, 4, 4, 6)]
    assert one.failed == []


async def test_a_gap_is_refused_and_what_fills_it_is_taken(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.input.number(program.process, "one")
    one.type(b"b", 1)
    one.type(b"x", (1 << 64) - 1)
    assert one.failed == [("input-gap", 1000)] * 2
    one.type(b"ab", 0)
    assert (program.typed(), one.told) == (b"ab", [(1000, 2)])


async def test_what_the_process_has_not_read_is_not_acknowledged(scene: Scene) -> None:
    """Repeated meanwhile, it is neither typed twice nor acknowledged; once it is read, all is."""
    program, one = scene.program(), Typist(scene)
    one.input.number(program.process, "one")
    data = bytes(range(256)) * (MAX_QUEUED_BYTES // 256)
    one.type(data, 0)
    [(_, taken)] = one.told
    assert taken < len(data)
    one.type(data, 0)
    one.type(b"x", len(data))
    one.type(data, len(data) + 1)
    assert (one.told, one.failed) == ([(1000, taken)], [("input-full", 1000)])
    assert await program.read(len(data) + 1) == data + b"x"
    assert one.told[-1] == (1000, len(data) + 1)


async def test_what_waits_for_a_process_that_ends_is_told_as_lost(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.input.number(program.process, "one")
    one.type(b"x" * MAX_QUEUED_BYTES, 0)
    program.end()
    assert one.failed == [("input-closed", 1000)]
    one.type(b"x", MAX_QUEUED_BYTES)
    assert one.failed == [("input-closed", 1000)] * 2


async def test_a_connection_that_comes_back_hears_and_the_old_one_does_not(scene: Scene) -> None:
    """Also when that is found to be gone only later."""
    program, old, new = scene.program(), Typist(scene), Typist(scene)
    old.input.number(program.process, "one")
    old.type(b"a", 0)
    assert new.input.number(program.process, "one").typed == 1
    old.input.leave()
    new.type(b"b", 1)
    assert (old.told, new.told, program.typed()) == ([(1000, 1)], [(1000, 2)], b"ab")
    new.input.leave()
    again = program.process.numbered().open("one", 1)
    assert (again.on_typed, again.on_dropped) == (None, None)


async def test_a_connection_that_opens_another_name_gives_back_the_first(scene: Scene) -> None:
    """The names that one connection had opened were in use for ever: after 64 of them nobody else could type
    numbered input into that process."""
    program, one, other = scene.program(), Typist(scene), Typist(scene)
    for number in range(INPUT_SLOTS + 1):
        one.input.number(program.process, f"name {number}")
    one.input.leave()
    for number in range(INPUT_SLOTS):
        Typist(scene).input.number(program.process, f"other {number}")
    with pytest.raises(LimitReached):
        other.input.number(program.process, "one too many")


async def test_a_name_that_there_is_no_room_for_leaves_the_one_before(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.input.number(program.process, "mine")
    for number in range(INPUT_SLOTS - 1):
        Typist(scene).input.number(program.process, f"{number}")
    with pytest.raises(LimitReached):
        one.input.number(program.process, "another")
    one.type(b"x", 0)
    assert (program.typed(), one.told) == (b"x", [(1000, 1)])


# Bounds


async def test_nothing_is_kept_for_processes_that_have_ended(scene: Scene) -> None:
    """A client may type into any number of them on one connection without watching one; each left some
    hundred bytes."""
    one = Typist(scene)
    for pid in range(1000, 1010):
        program = scene.program(pid)
        one.input.write(program.process, "x")
        one.input.number(program.process, "one")
        program.end()
    last = scene.program(2000)
    one.input.write(last.process, "x")
    assert (list(one.input._typing), list(one.input._numbered)) == ([2000], [])


async def test_what_has_ended_is_forgotten_and_can_be_opened_again(scene: Scene) -> None:
    program, one = scene.program(), Typist(scene)
    one.input.write(program.process, "\ud83d")
    one.input.number(program.process, "one")
    one.input.forget(1000)
    one.input.write(program.process, "\ude00")
    assert program.typed() == "\ufffd".encode()
    one.type(b"x", 0)
    assert one.failed == [("not-negotiated", 1000)]
