"""What is ended with a grant, and when: a real event loop, and a wall clock that is set by hand."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace

import pytest

from mhnos_runtime.server.auth import live as module
from mhnos_runtime.server.auth.grants import Grant, Scope
from mhnos_runtime.server.auth.live import Live

ANN = Grant("token:ann", frozenset({Scope.VIEW}))
BOB = replace(ANN, principal="token:bob")


class Wall:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now_s


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def live(wall: Wall) -> Live:
    return Live(asyncio.get_running_loop(), wall)


async def test_a_revocation_ends_all_of_one_grant_once_and_nothing_else(live: Live) -> None:
    ended: list[str] = []
    with (
        live.entered(ANN, lambda: ended.append("first")),
        live.entered(ANN, lambda: ended.append("second")),
        live.entered(BOB, lambda: ended.append("other")),
    ):
        live.end(ANN.principal)
        assert sorted(ended) == ["first", "second"]
        live.end(ANN.principal)
        assert len(ended) == 2
    live.end(BOB.principal)
    assert len(ended) == 2


async def test_the_same_callable_twice_is_two_things(live: Live) -> None:
    """One of the two left, and took the other's entry along."""
    ended: list[int] = []

    def end() -> None:
        ended.append(1)

    with live.entered(ANN, end):
        with live.entered(ANN, end):
            pass
        live.end(ANN.principal)
    assert ended == [1]


async def test_what_has_left_is_not_ended_and_nothing_is_kept_of_it(live: Live) -> None:
    ended: list[int] = []
    grant = replace(ANN, expires=live._now() + 5)
    with live.entered(grant, lambda: ended.append(1)):
        pass
    live.end(ANN.principal)
    assert ended == []
    assert live._entries == {}


async def test_one_that_cannot_be_ended_saves_no_other(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []

    def fail() -> None:
        raise RuntimeError("a defect")

    with ExitStack() as stack:
        for end in (fail, lambda: ended.append(1), fail, lambda: ended.append(2)):
            stack.enter_context(live.entered(ANN, end))
        live.end(ANN.principal)
    assert sorted(ended) == [1, 2]
    assert [record.msg for record in caplog.records] == ["defect at the end of a grant"] * 2


async def test_one_that_is_entered_by_an_end_is_not_ended_by_it(live: Live) -> None:
    with ExitStack() as stack:
        ended: list[str] = []

        def enter() -> None:
            ended.append("old")
            stack.enter_context(live.entered(ANN, lambda: ended.append("new")))

        stack.enter_context(live.entered(ANN, enter))
        live.end(ANN.principal)
        assert ended == ["old"]
        live.end(ANN.principal)
        assert ended == ["old", "new"]


async def test_an_expiry_ends_it_by_the_wall_clock(live: Live, wall: Wall) -> None:
    ended = asyncio.Event()
    with live.entered(replace(ANN, expires=wall.now_s + 0.01), ended.set):
        # The loop's clock is not the one that counts: while the wall's stands, it looks again and again.
        looks = wall.looks
        async with asyncio.timeout(20):
            while wall.looks < looks + 3:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.001)
        assert not ended.is_set()
        wall.now_s += 0.01
        await asyncio.wait_for(ended.wait(), 20)
        assert live._entries == {}


async def test_a_wall_clock_that_is_set_is_noticed(
    live: Live, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    ended = asyncio.Event()
    with live.entered(replace(ANN, expires=wall.now_s + 86_400), ended.set):
        wall.now_s += 86_400
        await asyncio.wait_for(ended.wait(), 20)


async def test_one_that_has_expired_already_is_ended_before_it_begins(live: Live, wall: Wall) -> None:
    ended: list[int] = []
    with live.entered(replace(ANN, expires=wall.now_s), lambda: ended.append(1)):
        assert ended == [1]
        live.end(ANN.principal)
    assert ended == [1]
    assert live._entries == {}
