"""How events reach who asks for them, in which order, and how that ends."""

from __future__ import annotations

import asyncio

import pytest

from mhnos_runtime.client.errors import ConnectionLost
from mhnos_runtime.client.subscription import Subscription


class Numbers(Subscription[int]):
    """entered: how often it began; left: how often it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = self.left = 0

    async def _enter(self) -> None:
        self.entered += 1

    def _leave(self) -> None:
        self.left += 1

    def take(self, number: int, last: bool = False) -> None:
        self._add(number, last=last)


async def test_it_begins_once_as_a_context_or_with_the_first_event() -> None:
    async with Numbers() as numbers:
        assert numbers.entered == 1
        numbers.take(1)
        assert await anext(numbers) == 1
    assert (numbers.entered, numbers.left) == (1, 1)
    bare = Numbers()
    bare.take(2)
    assert (await anext(bare), bare.entered) == (2, 1)


async def test_one_who_waits_is_given_what_comes() -> None:
    numbers = Numbers()
    waiting = asyncio.create_task(anext(numbers))
    await asyncio.sleep(0)
    numbers.take(7)
    assert await asyncio.wait_for(waiting, 20) == 7


async def test_what_has_come_is_taken_before_the_end() -> None:
    numbers = Numbers()
    numbers.take(1)
    numbers.take(2, last=True)
    assert [number async for number in numbers] == [1, 2]
    closed = Numbers()
    closed.take(3)
    closed.close()
    assert [number async for number in closed] == [3]


async def test_it_raises_why_nothing_more_comes() -> None:
    numbers = Numbers()
    numbers.take(1)
    numbers.end(ConnectionLost("closed"))
    assert await anext(numbers) == 1
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            await anext(numbers)
