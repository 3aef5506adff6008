"""What is typed into one process: in a bounded window, in order, again after what passes, never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mhnos_runtime.client.errors import ConnectionLost, RequestFailed
from mhnos_runtime.client.input_window import (
    FRAME_BYTES,
    REFUSED_FIRST_WAIT_S,
    REFUSED_LONGEST_WAIT_S,
    WINDOW_BYTES,
    InputWindow,
)
from mhnos_runtime.client.types import InputUncertain
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.client.carrier import FakeCarrier

PID = 1000


class Typist:
    """One window at work, and its server, which is the test."""

    def __init__(self) -> None:
        self.carrier = FakeCarrier()
        self.window = InputWindow(self.carrier, PID)
        self.running = asyncio.ensure_future(self.window.run())

    async def opened(self, next_: int, uncertain_from: int | None = None) -> None:
        answer = m.InputOpened(PID, next_)
        if uncertain_from is not None:
            answer.uncertain_from = uncertain_from
        request = await self.carrier.answer(answer)
        assert isinstance(request, m.OpenInput)
        assert (request.pid, request.client) == (PID, self.carrier.client_name)

    async def frame(self) -> tuple[int, bytes]:
        found = frames.unpack(await asyncio.wait_for(self.carrier.frames.get(), 10))
        return found.offset, bytes(found.payload)

    def refused(self, code: str) -> None:
        self.window.on_message(m.ErrorMessage("refused", code=code, pid=PID))

    def typed(self, next_: int) -> None:
        self.window.on_message(m.InputAck(PID, next_))


@pytest.fixture
async def typist() -> AsyncIterator[Typist]:
    made = Typist()
    yield made
    made.window.fail(RequestFailed("the end of the test"))
    await made.running


async def test_nothing_is_asked_before_something_is_typed(typist: Typist) -> None:
    await asyncio.sleep(0)
    assert typist.carrier.asked.empty()
    typist.window.write_nowait(b"x")
    await typist.opened(0)
    assert await typist.frame() == (0, b"x")


async def test_a_write_ends_when_its_last_byte_was_typed_and_not_before(typist: Typist) -> None:
    writing = asyncio.ensure_future(typist.window.write(b"abc"))
    await typist.opened(0)
    assert await typist.frame() == (0, b"abc")
    typist.typed(2)
    await asyncio.sleep(0)
    assert not writing.done()
    typist.typed(3)
    await asyncio.wait_for(writing, 10)


async def test_a_paste_goes_in_frames_of_a_bounded_size_in_order(typist: Typist) -> None:
    data = bytes(range(256)) * 1024
    typist.window.write_nowait(data)
    await typist.opened(0)
    found = b""
    while len(found) < len(data):
        offset, part = await typist.frame()
        assert offset == len(found)
        assert len(part) <= FRAME_BYTES
        found += part
    assert found == data


async def test_no_more_than_the_window_waits(typist: Typist) -> None:
    typist.window.write_nowait(bytes(WINDOW_BYTES))
    with pytest.raises(RequestFailed) as caught:
        typist.window.write_nowait(b"x")
    assert (caught.value.code, caught.value.retry) == ("input-full", True)
    writing = asyncio.ensure_future(typist.window.write(b"xyz"))
    await typist.opened(0)
    for at in range(0, WINDOW_BYTES, FRAME_BYTES):
        assert await typist.frame() == (at, bytes(FRAME_BYTES))
    assert typist.window.end == WINDOW_BYTES
    typist.typed(2)
    assert await typist.frame() == (WINDOW_BYTES, b"xy")
    typist.typed(WINDOW_BYTES + 2)
    assert await typist.frame() == (WINDOW_BYTES + 2, b"z")
    typist.typed(WINDOW_BYTES + 3)
    await asyncio.wait_for(writing, 10)


async def test_two_writes_do_not_mix(typist: Typist) -> None:
    first, second = bytes(WINDOW_BYTES + 1), b"b" * 10
    writing = [asyncio.ensure_future(typist.window.write(data)) for data in (first, second)]
    await typist.opened(0)
    found = b""
    while len(found) < len(first + second):
        _, part = await typist.frame()
        found += part
        typist.typed(len(found))
    assert found == first + second
    await asyncio.wait_for(asyncio.gather(*writing), 10)


async def test_after_a_lost_connection_it_goes_on_where_the_server_says(typist: Typist) -> None:
    typist.window.write_nowait(b"abcdef")
    await typist.opened(0)
    assert await typist.frame() == (0, b"abcdef")
    typist.window.on_lost()
    await typist.opened(4)
    assert await typist.frame() == (4, b"ef")
    assert typist.window.acknowledged == 4


async def test_a_connection_that_is_lost_while_it_asks_is_asked_again(typist: Typist) -> None:
    typist.window.write_nowait(b"a")
    _, _, future = await asyncio.wait_for(typist.carrier.asked.get(), 10)
    future.set_exception(ConnectionLost("lost"))
    await typist.opened(0)
    assert await typist.frame() == (0, b"a")


@pytest.mark.parametrize("code", ["input-full", "input-gap", "not-negotiated"])
async def test_what_passes_is_tried_again_after_growing_waits(typist: Typist, code: str) -> None:
    typist.window.write_nowait(b"a")
    for _ in range(9):
        await typist.opened(0)
        assert await typist.frame() == (0, b"a")
        typist.refused(code)
    await typist.opened(0)
    slept = typist.carrier.slept_s
    assert slept[0] == REFUSED_FIRST_WAIT_S
    assert slept[1] == 2 * slept[0]
    assert slept[-1] == REFUSED_LONGEST_WAIT_S


async def test_a_typed_byte_makes_the_waits_short_again(typist: Typist) -> None:
    typist.window.write_nowait(b"ab")
    for _ in range(3):
        await typist.opened(0)
        await typist.frame()
        typist.refused("input-full")
    await typist.opened(1)
    await typist.frame()
    typist.refused("input-full")
    await typist.opened(1)
    assert typist.carrier.slept_s[-1] == REFUSED_FIRST_WAIT_S


async def test_what_does_not_pass_ends_it_for_every_writer(typist: Typist) -> None:
    writing = asyncio.ensure_future(typist.window.write(b"a"))
    await typist.opened(0)
    await typist.frame()
    typist.refused("input-closed")
    with pytest.raises(RequestFailed, match="refused"):
        await asyncio.wait_for(writing, 10)
    with pytest.raises(RequestFailed, match="refused"):
        typist.window.write_nowait(b"b")
    await asyncio.wait_for(typist.running, 10)


async def test_the_end_of_the_process_ends_it(typist: Typist) -> None:
    settled = asyncio.ensure_future(typist.window.settled())
    await asyncio.wait_for(settled, 10)
    typist.window.write_nowait(b"a")
    typist.window.on_message(m.Exit(PID, 0, None, 5))
    with pytest.raises(RequestFailed) as caught:
        await typist.window.settled()
    assert caught.value.code == "input-closed"


async def test_what_a_killed_server_may_have_typed_is_told_and_not_typed_again(typist: Typist) -> None:
    typist.window.write_nowait(b"abcdef")
    await typist.opened(0)
    await typist.frame()
    typist.typed(1)
    typist.window.on_lost()
    await typist.opened(4, uncertain_from=2)
    assert await typist.frame() == (4, b"ef")
    told = [InputUncertain(PID, 2, 4, b"cd")]
    assert typist.window.uncertain == typist.carrier.uncertain == told


async def test_a_server_that_knows_less_than_it_had_acknowledged_gets_nothing_more(typist: Typist) -> None:
    typist.window.write_nowait(b"ab")
    await typist.opened(0)
    await typist.frame()
    typist.typed(2)
    typist.window.on_lost()
    typist.window.write_nowait(b"c")
    await typist.opened(1)
    with pytest.raises(RequestFailed) as caught:
        await typist.window.settled()
    assert caught.value.code == "input-lost"


async def test_an_acknowledgement_beyond_what_was_typed_takes_no_more_than_there_is(typist: Typist) -> None:
    typist.window.write_nowait(b"ab")
    await typist.opened(0)
    typist.typed(100)
    assert (typist.window.acknowledged, typist.window.end) == (2, 2)
