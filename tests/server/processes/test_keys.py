"""Idempotency keys: one start at a time, whoever comes meanwhile, and whatever becomes of the first one."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest, StartFailed
from mhnos_runtime.process.facts import SpawnKey
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.keys import Keys, digest
from mhnos_runtime.wire import messages as m
from tests.server.processes.scene import Processes, shell, turns


class Starts:
    """Starts that end when the test says so."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.table = ProcessTable(10, 10, 1000)
        self.keys = Keys(self.table)
        self.running: list[asyncio.Future[None]] = []

    def begin(self, request: m.Spawn) -> asyncio.Task[Process]:
        return asyncio.create_task(self.keys.once(request, lambda: self._start(request)))

    async def _start(self, request: m.Spawn) -> Process:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.running.append(answer)
        pid = 999 + len(self.running)
        await answer
        key = None if request.key is None else SpawnKey(request.key, digest(request))
        process = self._processes.make(pid, key=key)
        self.table.add(process)
        return process


@pytest.fixture
def starts(processes: Processes) -> Starts:
    return Starts(processes)


KEYED = shell(key="k")


async def test_requests_without_a_key_start_side_by_side(starts: Starts) -> None:
    tasks = [starts.begin(shell()) for _ in range(3)]
    await turns()
    assert len(starts.running) == 3
    for answer in starts.running:
        answer.set_result(None)
    assert len({process.pid for process in await asyncio.gather(*tasks)}) == 3


async def test_two_at_once_share_one_process(starts: Starts) -> None:
    first, second, other = starts.begin(KEYED), starts.begin(KEYED), starts.begin(shell(key="other"))
    await turns()
    assert len(starts.running) == 2, "one of each key"
    for answer in starts.running:
        answer.set_result(None)
    assert (await first) is (await second)
    assert (await other) is not (await first)


async def test_a_repetition_finds_the_process_until_it_is_forgotten(starts: Starts) -> None:
    first = starts.begin(KEYED)
    await turns()
    starts.running[0].set_result(None)
    process = await first
    assert await starts.begin(shell(key="k", id="another")) is process
    del starts.table._processes[process.pid]
    starts.begin(KEYED).add_done_callback(lambda task: task.exception())
    await turns()
    assert len(starts.running) == 2
    starts.running[1].set_result(None)
    await turns()


async def test_another_request_with_the_key_waits_and_is_refused(starts: Starts) -> None:
    first, conflicting = starts.begin(KEYED), starts.begin(shell("false", key="k"))
    await turns()
    assert not conflicting.done()
    starts.running[0].set_result(None)
    await first
    with pytest.raises(InvalidRequest) as refused:
        await conflicting
    assert refused.value.code == "key-conflict"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_after_a_failure_the_next_one_starts_and_no_other_beside_it(
    starts: Starts, cancelled: bool
) -> None:
    """The lock was thrown away with the first request while the second one waited for it: a third took a new
    lock, and two processes of one key ran."""
    first, second = starts.begin(KEYED), starts.begin(KEYED)
    await turns()
    if cancelled:
        first.cancel()
    else:
        starts.running[0].set_exception(StartFailed("no"))
    with pytest.raises(asyncio.CancelledError if cancelled else StartFailed):
        await first
    third = starts.begin(KEYED)
    await turns()
    assert len(starts.running) == 2
    starts.running[1].set_result(None)
    assert (await second) is (await third)


async def test_one_that_waits_can_be_cancelled(starts: Starts) -> None:
    first, second, third = (starts.begin(KEYED) for _ in range(3))
    await turns()
    second.cancel()
    starts.running[0].set_result(None)
    assert (await first) is (await third)
    assert len(starts.running) == 1


async def test_keys_that_nobody_uses_take_no_memory(starts: Starts) -> None:
    tasks = [starts.begin(shell(key=str(number))) for number in range(3)]
    await turns()
    assert len(starts.keys._locks) == 3
    starts.running[0].set_result(None)
    starts.running[1].set_exception(StartFailed("no"))
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Exceptions hold the frames that they went through.
    del tasks
    starts.running.clear()
    await turns()
    gc.collect()
    assert list(starts.keys._locks) == []


@given(st.text("aé\n", max_size=9), st.dictionaries(st.sampled_from("abc"), st.sampled_from("de")))
def test_the_digest_is_of_all_but_the_id(command: str, env: dict[str, str]) -> None:
    def request(**fields: object) -> m.Spawn:
        return shell(command, options=m.SpawnOptions(env=env), **fields)

    backwards = dict(reversed(env.items()))
    same = shell(command, options=m.SpawnOptions(env=backwards), id="another")
    assert digest(request()) == digest(same)
    assert digest(request()) != digest(request(name="x"))
    assert digest(request()) != digest(shell(command + "!", options=m.SpawnOptions(env=env)))
