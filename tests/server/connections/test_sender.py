"""What one connection sends first, and what waits for its turn."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from mhnos_runtime.server.connections import sender as sender_module
from mhnos_runtime.server.connections import turns as turns_module
from mhnos_runtime.server.connections.sender import LARGE_BYTES, TURN_BYTES, Sender
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.connections.viewer import Frame
from tests.server.connections.scene import turns_until


class Socket:
    """Takes what it is given, full_after so many messages no more. sent: their names, in order."""

    writable = True
    full_after = 1000

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, head: bytes, body: bytes, _binary: bool, *, first: bool = True, last: bool = True) -> None:
        self.sent.append((head + body).decode().strip(".") + ("" if first and last else f" {first} {last}"))
        self.writable = self.writable and len(self.sent) < self.full_after


class Source:
    """A viewer with so many frames of so many bytes left."""

    queued = finished = False

    def __init__(self, name: str, frame_bytes: int, frames: int) -> None:
        self._frame = Frame(name.encode(), b"." * (frame_bytes - len(name)), True)
        self._frame_bytes = frame_bytes
        self._left = frames

    def give(self, frames: int) -> None:
        self._left += frames

    def put_back(self, _frame: Frame) -> None:
        self._left += 1

    @property
    def lag(self) -> int:
        return self._left * self._frame_bytes

    def next_frame(self) -> Frame | None:
        if not self._left:
            return None
        self._left -= 1
        return self._frame


class Waiting:
    """Events, by their names."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    def __bool__(self) -> bool:
        return bool(self.names)

    def next(self) -> bytes | None:
        return self.names.pop(0).encode() if self.names else None


def sender(turns: Turns, **options: Any) -> tuple[Sender, Socket]:
    socket = Socket()
    options = {"events": [Waiting()], "finished": lambda _viewer: None, "on_room": lambda: None, **options}
    return Sender(cast(Any, socket), turns, **options), socket


def large(name: str, frames: int) -> Any:
    return Source(name, TURN_BYTES, frames)


def small(name: str) -> Any:
    return Source(name, 1, 1)


async def until_sent(socket: Socket, count: int) -> None:
    for _ in range(1000):
        if len(socket.sent) >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"sent only {socket.sent}")


async def test_what_is_small_goes_out_at_once_and_ahead_of_floods() -> None:
    one, socket = sender(Turns(asyncio.get_running_loop()))
    for name in ("a", "b"):
        one.ready(large(name, 2))
    one.ready(small("echo"))
    one.answer(b"answer")
    assert socket.sent == ["echo", "answer"]
    await until_sent(socket, 6)
    assert socket.sent[2:] == ["a", "b", "a", "b"]


async def test_what_is_less_than_large_needs_no_turn() -> None:
    one, socket = sender(Turns(asyncio.get_running_loop()))
    one.ready(cast(Any, Source("most", LARGE_BYTES - 1, 1)))
    assert socket.sent == ["most"]


async def test_connections_take_turns_and_what_is_small_comes_between(monkeypatch: Any) -> None:
    monkeypatch.setattr(turns_module, "TURN_SECONDS", 0.0)
    loop = asyncio.get_running_loop()
    turns = Turns(loop)
    (first, one), (second, other) = sender(turns), sender(turns)
    first.ready(large("a", 3))
    second.ready(large("b", 3))
    order: list[tuple[int, int]] = []
    while len(one.sent) + len(other.sent) < 6:
        order.append((len(one.sent), len(other.sent)))
        await asyncio.sleep(0)
    assert sorted({*order}) == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2)]


async def test_many_small_frames_do_not_keep_the_loop() -> None:
    one, socket = sender(Turns(asyncio.get_running_loop()))
    one.ready(cast(Any, Source("x", 64, 8 * TURN_BYTES // 64)))
    before = len(socket.sent)
    for _ in range(3):
        await asyncio.sleep(0)
        assert len(socket.sent) - before <= TURN_BYTES // 64
        before = len(socket.sent)


async def test_a_client_that_takes_nothing_is_asked_again_when_it_does() -> None:
    one, socket = sender(Turns(asyncio.get_running_loop()))
    socket.writable = False
    one.ready(large("a", 1))
    one.ready(small("echo"))
    await asyncio.sleep(0)
    assert socket.sent == []
    socket.writable = True
    one.flush()
    await until_sent(socket, 2)
    assert socket.sent == ["echo", "a"]


async def test_nothing_stands_between_the_parts_of_a_message() -> None:
    """Behind the answers that were there before it; RFC 6455, 5.4 allows no other message in between."""
    made, socket = sender(Turns(asyncio.get_running_loop()))
    socket.writable = False
    made.answer(b"before")
    sending = asyncio.create_task(made.part(b"one", last=False))
    await asyncio.sleep(0)
    socket.writable = True
    made.flush()
    await sending
    assert socket.sent == ["before", "one True False"]
    made.answer(b"after")
    made.ready(small("small"))
    assert socket.sent == ["before", "one True False"]
    await made.part(b"two", last=False)
    await made.part(b"three", last=True)
    assert socket.sent[2:] == ["two False False", "three False True", "after", "small"]


async def test_an_answer_that_comes_up_on_the_way_goes_out_before_the_frame_that_brought_it() -> None:
    """`attached` stands between what is replayed and what is not."""
    made, socket = sender(Turns(asyncio.get_running_loop()))
    source = small("live")
    hand_out = source.next_frame

    def replayed() -> Any:
        source.next_frame = hand_out
        made.answer(b"attached")
        return hand_out()

    source.next_frame = replayed
    made.ready(source)
    assert socket.sent == ["attached", "live"]


async def test_a_viewer_is_queued_once_and_again_when_it_has_slept() -> None:
    made, socket = sender(Turns(asyncio.get_running_loop()))
    socket.writable = False
    source = Source("x", 1, 2)
    for _ in range(3):
        made.ready(cast(Any, source))
    socket.writable = True
    made.flush()
    assert (socket.sent, source.queued) == (["x", "x"], False)
    source.give(1)
    made.ready(cast(Any, source))
    assert socket.sent == ["x"] * 3


async def test_a_viewer_that_has_finished_is_told_of_once() -> None:
    finished: list[object] = []
    made, socket = sender(Turns(asyncio.get_running_loop()), finished=finished.append)
    source = small("exit")
    source.finished = True
    made.ready(source)
    assert (socket.sent, finished) == (["exit"], [source])


async def test_there_is_room_again_once_the_answers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "MAX_ANSWER_BYTES", 10)
    rooms: list[int] = []
    socket: Socket
    made, socket = sender(Turns(asyncio.get_running_loop()), on_room=lambda: rooms.append(len(socket.sent)))
    socket.writable = False
    for number in range(5):
        made.answer(b"%03d" % number)
        assert made.full is (number >= 3)
    socket.writable = True
    made.flush()
    # With the second answer that went.
    assert (rooms, made.full, len(socket.sent)) == ([1], False, 5)


async def test_an_answer_of_any_size_is_sent_and_the_next_waits_for_a_turn() -> None:
    """Also those that fill a turn by themselves."""
    made, socket = sender(Turns(asyncio.get_running_loop()))
    socket.writable = False
    for name in (b"a", b"b"):
        made.answer(name + b"." * TURN_BYTES)
    socket.writable = True
    made.flush()
    assert socket.sent == ["a"]
    await until_sent(socket, 2)


async def test_nothing_is_sent_while_the_client_takes_nothing() -> None:
    made, socket = sender(Turns(asyncio.get_running_loop()))
    socket.full_after = 1
    for name in (b"a", b"b", b"c"):
        made.answer(name)
    assert socket.sent == ["a"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert socket.sent == ["a"]
    socket.writable, socket.full_after = True, 100
    made.flush()
    assert socket.sent == ["a", "b", "c"]


async def test_a_part_waits_until_it_is_taken() -> None:
    made, socket = sender(Turns(asyncio.get_running_loop()))
    socket.writable = False
    sending = asyncio.create_task(made.part(b"one", last=True))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not sending.done()
    made.answer(b"before it")
    socket.writable = True
    made.flush()
    await sending
    assert socket.sent == ["before it", "one"]


async def test_parts_that_wait_together_come_in_order() -> None:
    made, socket = sender(Turns(asyncio.get_running_loop()))
    socket.writable = False
    sending = [asyncio.create_task(made.part(name, last=name == b"2")) for name in (b"1", b"2")]
    await asyncio.sleep(0)
    socket.writable = True
    made.flush()
    await asyncio.gather(*sending)
    assert socket.sent == ["1 True False", "2 False True"]


async def test_events_go_behind_answers_and_before_output() -> None:
    one, socket = sender(Turns(asyncio.get_running_loop()), events=[Waiting("event-1"), Waiting("event-2")])
    socket.writable = False
    one.ready(Source("output", 100, 1))  # type: ignore[arg-type]
    one.answer(b"answer")
    socket.writable = True
    one.flush()
    assert socket.sent == ["answer", "event-1", "event-2", "output"]


async def test_events_that_are_left_over_wait_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "TURN_BYTES", 1)
    one, socket = sender(
        Turns(asyncio.get_running_loop()), events=[Waiting("event-1", "event-2"), Waiting("event-3")]
    )
    one.flush()
    assert socket.sent == ["event-1"]
    await turns_until(lambda: len(socket.sent) == 3)
