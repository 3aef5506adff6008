"""What has expired is swept at once and again, whatever goes wrong."""

from __future__ import annotations

import asyncio

import pytest

from mhnos_runtime.files.steps import Steps
from mhnos_runtime.server.files import sweeper
from mhnos_runtime.server.files.sweeper import Sweeper
from mhnos_runtime.server.files.work import FileWork


class Trash:
    def __init__(self) -> None:
        self.swept = 0

    def sweep(self) -> Steps[None]:
        self.swept += 1
        yield
        if self.swept == 1:
            raise ValueError("a defect")


async def test_it_goes_on_after_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "PERIOD_SECONDS", 0.001)
    trash, work, enough = Trash(), FileWork(), asyncio.Event()
    defects: list[Exception] = []

    def defect(error: Exception) -> None:
        defects.append(error)
        enough.set()

    sweeping = Sweeper(trash.sweep, work, defect)
    await asyncio.wait_for(enough.wait(), 20)
    async with asyncio.timeout(20):
        while trash.swept < 3:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
    sweeping.close()
    # Nothing else sweeps.
    await asyncio.wait({sweeping._task}, timeout=20)
    assert sweeping._task.cancelled()
    assert [str(error) for error in defects] == ["a defect"]
    await asyncio.to_thread(work.close)
