"""Work for disks in turns: fair to all, and given up when its owner is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

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


async def test_what_the_steps_raise_is_raised(work: FileWork) -> None:
    def wrong() -> Iterator[int]:
        yield 1
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await work.begin(lambda: None).all(wrong())
