"""Large output, round-robin: a little for each turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mhnos_runtime.server.connections import turns as turns_module
from mhnos_runtime.server.connections.turns import Turns
from tests.server.connections.scene import turns_until


async def test_each_is_called_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "TURN_SECONDS", 1000.0)
    turns, called = Turns(asyncio.get_running_loop()), list[int]()
    for number in range(3):
        turns.later(lambda number=number: called.append(number))  # type: ignore[misc]
    assert (called, bool(turns)) == ([], True)
    await asyncio.sleep(0)
    assert (called, bool(turns)) == ([0, 1, 2], False)


async def test_a_turn_ends_after_its_time_and_the_event_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for another turn comes behind those who wait."""
    monkeypatch.setattr(turns_module, "TURN_SECONDS", 0.0)
    turns, called = Turns(asyncio.get_running_loop()), list[str]()

    def again() -> None:
        called.append("a")
        if len(called) < 4:
            turns.later(again)

    turns.later(again)
    turns.later(lambda: called.append("b"))
    seen = []
    while turns:
        await asyncio.sleep(0)
        seen.append("".join(called))
    assert seen == ["a", "ab", "aba", "abaa"]


async def test_one_who_fails_in_its_turn_does_not_stop_the_others() -> None:
    loop = asyncio.get_running_loop()
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: failed.append(context))
    turns, called = Turns(loop), asyncio.Event()

    def fail() -> None:
        raise ZeroDivisionError

    turns.later(fail)
    turns.later(called.set)
    await turns_until(called.is_set)
    assert len(failed) == 1
    assert not turns
