"""What one connection sends first, and what waits for its turn."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from mhnos_runtime.server.connections import turns as turns_module
from mhnos_runtime.server.connections.sender import LARGE_BYTES, TURN_BYTES, Sender
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.connections.viewer import Frame


class Socket:
    """Takes all it is given; what was sent is its names, in order."""

    writable = True

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, head: bytes, body: bytes, _binary: bool, *, first: bool = True, last: bool = True) -> None:
        self.sent.append((head + body).decode().strip(".") + ("" if first and last else f" {first} {last}"))


class Source:
    """A viewer with so many frames of so many bytes left."""

    queued = finished = False

    def __init__(self, name: str, frame_bytes: int, frames: int) -> None:
        self._frame = Frame(name.encode(), b"." * (frame_bytes - len(name)), True)
        self._frame_bytes = frame_bytes
        self._left = frames

    @property
    def lag(self) -> int:
        return self._left * self._frame_bytes

    def next_frame(self) -> Frame | None:
        if not self._left:
            return None
        self._left -= 1
        return self._frame


def sender(turns: Turns) -> tuple[Sender, Socket]:
    socket = Socket()
    made = Sender(cast(Any, socket), turns, finished=lambda _viewer: None, on_room=lambda: None)
    return made, socket


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


async def test_one_who_fails_in_its_turn_does_not_stop_the_others() -> None:
    loop = asyncio.get_running_loop()
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: failed.append(context))
    turns, called = Turns(loop), asyncio.Event()

    def fail() -> None:
        raise ZeroDivisionError

    turns.later(fail)
    turns.later(called.set)
    async with asyncio.timeout(10):
        await called.wait()
    assert len(failed) == 1
    assert not turns


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
