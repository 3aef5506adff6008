"""The sizes of a log file."""

from __future__ import annotations

import pytest

from mhnos_runtime.output import layout as at


@pytest.mark.parametrize("retention", [0, 1, 4095, 4096, 1 << 20, (1 << 20) + 1])
def test_sizes_keep_the_promise(retention: int) -> None:
    capacity, slots, size = at.sizes(retention)
    assert capacity >= retention + at.BURST_BYTES
    assert capacity % at.PAGE == 0
    assert slots * at.BYTES_PER_SLOT >= capacity
    assert size == at.PAGE + slots * 16 + capacity
