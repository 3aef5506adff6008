"""Pages of names, whatever their order and number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.files.names import STEP_NAMES, lowest
from tests.files.driving import drive

NAMES = st.lists(st.binary(min_size=1, max_size=3), unique=True, max_size=60)


@given(NAMES, st.integers(1, 7), st.booleans())
def test_pages_together_are_all_names_in_order(names: list[bytes], limit: int, reverse: bool) -> None:
    found: list[bytes] = []
    while page := drive(lowest(names, found[-1] if found else None, limit, reverse=reverse)):
        assert len(page) <= limit
        found += page
    assert found == sorted(names, reverse=reverse)


@given(NAMES, st.binary(max_size=3), st.integers(1, 7))
def test_a_name_to_go_on_from_need_not_be_there(names: list[bytes], after: bytes, limit: int) -> None:
    assert drive(lowest(names, after, limit)) == sorted(name for name in names if name > after)[:limit]


def test_a_million_names_cost_a_page_of_memory() -> None:
    def names() -> Iterator[bytes]:
        for number in range(1_000_000):
            yield b"%08d" % (number * 7919 % 1_000_003)

    tracemalloc.start()
    try:
        page = drive(lowest(names(), None, 1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert page == sorted(names())[:1000]
    assert peak < 1 << 20


def test_it_is_done_in_steps() -> None:
    steps = lowest((b"%d" % number for number in range(10 * STEP_NAMES)), None, 5)
    assert sum(1 for _ in steps) == 10
