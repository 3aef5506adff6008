"""How far a transfer is, for people and for logs."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from mhnos_runtime.cli import progress
from mhnos_runtime.cli.progress import Progress

MIB = 1 << 20


class Clock:
    """A time that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_what_is_quick_says_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with Progress("a", 10) as shown:
        shown.at(10)
    assert capfd.readouterr().err == ""
    assert "rich" not in sys.modules


def test_elsewhere_than_on_a_terminal_there_are_lines(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with Progress("big\x1b.iso", 100 * MIB) as shown:
        for at in range(1, 5):
            clock.now += 6
            shown.at(at * 25 * MIB)
    assert capfd.readouterr().err.splitlines() == [
        "[big\\x1b.iso: 50.0 MiB of 100.0 MiB, 4.2 MiB/s, 12s left]",
        "[big\\x1b.iso: 100.0 MiB of 100.0 MiB, 4.2 MiB/s]",
        "[big\\x1b.iso: 100.0 MiB in 24s, 4.2 MiB/s]",
    ]


def test_the_rate_is_of_what_was_sent_now(clock: Clock) -> None:
    with Progress("a", 100 * MIB) as shown:
        shown.begin_at(90 * MIB)
        clock.now += 5
        shown.at(95 * MIB)
        assert shown.line(clock.now) == "95.0 MiB of 100.0 MiB, 1.0 MiB/s, 5s left"


def test_a_size_that_nobody_knows(clock: Clock) -> None:
    shown = Progress("a", None)
    clock.now += 2
    shown.add(4 * MIB)
    assert shown.line(clock.now) == "4.0 MiB, 2.0 MiB/s"


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_quiet_says_nothing(
    clock: Clock, capfd: pytest.CaptureFixture[str], end: type[BaseException] | None
) -> None:
    shown = Progress("a", 10, quiet=True)
    shown.__enter__()
    clock.now += 60
    shown.at(5)
    shown.__exit__(end, None, None)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("columns", "total"), [(40, 2047 * MIB), (59, 2047 * MIB), (60, 2047 * MIB), (80, 2047 * MIB), (40, None)]
)
def test_numbers_are_whole_on_any_screen(
    monkeypatch: pytest.MonkeyPatch, columns: int, total: int | None
) -> None:
    """At 40 columns it read "… 852.7 MiB of 2.0 … 303.7 Mi… 4s l…"."""
    monkeypatch.setenv("COLUMNS", str(columns))
    bars = progress._bars("a title that is long", total, 852 * MIB)
    try:
        with bars.console.capture() as got:
            bars.console.print(bars.get_renderable())
    finally:
        bars.stop()
    [line] = got.get().splitlines()
    assert ("852.0 MiB of 2.0 GiB" if total else "852.0 MiB") in line
    assert "…" not in line.partition("852")[2]
    assert ("title" in line, len(line) < columns) == (columns >= 60, True)
