"""So many lines a minute of what anybody can cause, and how many were left out."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LINES_A_MINUTE, LimitedLog, Limiter, LimitForeign


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream(clock: Clock) -> Iterator[io.StringIO]:
    """Where all logging goes, that of libraries limited."""
    found = io.StringIO()
    handler = logs.setup("info", "json", found)
    handler.addFilter(LimitForeign(Limiter(clock)))
    yield found
    logging.getLogger().removeHandler(handler)


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_minute_is_any_minute(clock: Clock) -> None:
    limiter = Limiter(clock)
    for _ in range(LINES_A_MINUTE):
        assert limiter.allow()
        clock.now_s += 0.5
    assert not limiter.allow()
    clock.now_s += 29.9
    assert not limiter.allow()
    clock.now_s += 0.1
    assert limiter.allow()
    assert not limiter.allow()


def test_what_is_left_out_is_counted_once(clock: Clock, stream: io.StringIO) -> None:
    log = LimitedLog(logs.get("x"), Limiter(clock))
    for _ in range(LINES_A_MINUTE + 5):
        log.warning("bad", address="a")
    clock.now_s += 60
    log.warning("bad", address="b")
    log.warning("bad", address="b")
    left_out = [line.get("unreported", 0) for line in written(stream)]
    assert left_out == [0] * LINES_A_MINUTE + [5, 0]


def test_libraries_are_limited_and_the_runtime_is_not(clock: Clock, stream: io.StringIO) -> None:
    foreign = logging.getLogger("asyncio")
    for _ in range(LINES_A_MINUTE + 7):
        foreign.error("failed")
        logs.get("server").info("own")
    clock.now_s += 60
    foreign.error("failed")
    lines = written(stream)
    assert sum(line["msg"] == "own" for line in lines) == LINES_A_MINUTE + 7
    failed = [line for line in lines if line["msg"] == "failed"]
    assert (len(failed), failed[-1]["unreported"]) == (LINES_A_MINUTE + 1, 7)


def test_a_traceback_has_an_end(stream: io.StringIO) -> None:
    try:
        raise ValueError("x" * 100_000 + "the end")
    except ValueError:
        logs.get("server").exception("failed")
    (line,) = written(stream)
    text = str(line["exception"])
    assert len(text) < logs.MAX_TRACEBACK + 100
    assert text.endswith("the end")
