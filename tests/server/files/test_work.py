"""Work for disks in turns: fair to all, and given up when its owner is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from mhnos_runtime.errors import LimitReached, NotFound
from mhnos_runtime.files.steps import GivenUp, Steps
from mhnos_runtime.server.files import work as filework
from mhnos_runtime.server.files.work import FileWork


@pytest_asyncio.fixture
async def work() -> AsyncIterator[FileWork]:
    made = FileWork()
    yield made
    await asyncio.to_thread(made.close)


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


async def test_what_comes_later_does_not_wait_for_what_is_long(
    work: FileWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filework, "TURN_SECONDS", 0.0)
    tasks = [asyncio.create_task(work.begin(lambda: None).all(endless())) for _ in range(10)]
    assert await work.begin(lambda: None).all(iter([1, 2, 3])) == [1, 2, 3]
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_job_ends_at_its_next_step_and_is_closed_after_it(work: FileWork) -> None:
    begun, go_on, closed, steps = threading.Event(), threading.Event(), threading.Event(), list[int]()

    def slow() -> Iterator[int]:
        for number in range(1000):
            begun.set()
            go_on.wait()
            assert not closed.is_set()
            steps.append(number)
            yield number

    job = work.begin(closed.set)
    task = asyncio.create_task(job.all(slow()))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    job.close()
    job.close()
    await asyncio.gather(task, return_exceptions=True)
    assert not closed.is_set()
    go_on.set()
    await asyncio.to_thread(closed.wait)
    assert steps == [0]


async def test_who_gives_up_waiting_for_a_disk_takes_no_second_thread(work: FileWork) -> None:
    """A disk that has hung holds the thread of the step that waits for it. To give that request up, as people
    do then, must not hold the other one."""
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def hung() -> Iterator[None]:
        begun.set()
        go_on.wait()
        yield

    job = work.begin(closed.set)
    task = asyncio.create_task(job.all(hung()))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    job.close()
    try:
        async with asyncio.timeout(10):
            assert await work.run(one()) == 1
            assert await work.run(one()) == 1
        assert not closed.is_set()
    finally:
        go_on.set()
    assert await asyncio.to_thread(closed.wait, 10)
    await asyncio.gather(task, return_exceptions=True)


async def test_what_the_steps_raise_is_raised(work: FileWork) -> None:
    def wrong() -> Iterator[int]:
        yield 1
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await work.begin(lambda: None).all(wrong())


async def test_owners_take_turns_and_not_their_jobs(work: FileWork) -> None:
    """One with many jobs does not have more of the threads than one with a single job."""
    go_on, order = threading.Event(), list[str]()

    def step(name: str) -> Iterator[None]:
        order.append(name)
        yield

    def held() -> Iterator[None]:
        go_on.wait()
        yield

    holding = [asyncio.create_task(work.begin(lambda: None).all(held())) for _ in range(filework.THREADS)]
    await asyncio.sleep(0)
    crowd, single = object(), object()
    jobs = [(work.begin(lambda: None, crowd), "crowd") for _ in range(20)]
    jobs += [(work.begin(lambda: None, single), "single")]
    tasks = [asyncio.create_task(job.all(step(name))) for job, name in jobs]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*holding, *tasks)
    # Two threads: of the two that come first, either may be noted first.
    assert "single" in order[:3]


async def test_an_owner_has_so_many_jobs_and_no_more(work: FileWork) -> None:
    owner = object()
    jobs = [work.begin(lambda: None, owner) for _ in range(filework.MAX_JOBS)]
    with pytest.raises(LimitReached):
        work.begin(lambda: None, owner)
    with work.begin(lambda: None, object()) as job:
        assert await job.all(iter([1])) == [1]
    for each in jobs:
        each.close()
    while True:
        try:
            work.begin(lambda: None, owner)
            break
        except LimitReached:
            await asyncio.sleep(0)


async def test_what_steps_return_is_the_result(work: FileWork) -> None:
    def steps() -> Steps[str]:
        yield
        yield
        return "done"

    assert await work.run(steps()) == "done"


@pytest.mark.parametrize("turn_seconds", [0.0, 60.0])
async def test_steps_that_are_given_up_clear_up_in_further_turns(
    work: FileWork, monkeypatch: pytest.MonkeyPatch, turn_seconds: float
) -> None:
    """A generator that is closed can take no more steps: half a copy of a large tree would be removed in one
    go, and hold a thread for that long."""
    monkeypatch.setattr(filework, "TURN_SECONDS", turn_seconds)
    begun, cleared = threading.Event(), threading.Event()

    def steps() -> Steps[None]:
        try:
            while True:
                begun.set()
                yield
        except GivenUp:
            for _ in range(100):
                yield
            cleared.set()
            raise

    task = asyncio.create_task(work.run(steps()))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await work.run(one()) == 1
    assert await asyncio.to_thread(cleared.wait, 10)


def one() -> Steps[int]:
    yield
    return 1


@pytest.mark.parametrize("error", [ValueError, OSError, NotFound])
async def test_what_goes_wrong_in_clearing_up_frees_the_place_all_the_same(
    work: FileWork, error: type[Exception]
) -> None:
    begun, owner = threading.Event(), object()

    def steps() -> Steps[None]:
        try:
            while True:
                begun.set()
                yield
        except GivenUp:
            raise error("x") from None

    for _ in range(filework.MAX_JOBS + 1):
        begun.clear()
        task = asyncio.create_task(work.run(steps(), owner))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while owner in work._jobs:  # noqa: ASYNC110 - a thread frees it, and tells nobody
            await asyncio.sleep(0)
