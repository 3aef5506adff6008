"""How far a transfer is, on stderr: a bar on a terminal, a line now and then elsewhere, nothing for what is
quick. Knows bytes and a clock; not what is transferred."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from mhnos_runtime.cli import say

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

#: What is over by then shows no bar: it would only flicker, and the library for it takes 50 ms to load.
QUICK_S = 0.7
#: Between two lines where there is no terminal, as in a log.
LINE_S = 10.0
_TITLE_COLUMNS = 24
#: On a narrower screen the numbers take its place.
_BAR_FROM_COLUMNS = 80
#: On a narrower screen the title and the rate would leave no number whole.
_ALL_FROM_COLUMNS = 60
#: Left free at the end of the line: a terminal writes ^C there, which must not begin another line.
_ECHO_COLUMNS = 3


class Progress:
    """Use as a context manager; tell it `at` each piece. total: bytes, None where nobody knows."""

    def __init__(self, title: str, total: int | None, *, quiet: bool = False) -> None:
        self.total = total
        self._title, self._quiet = say.printable(title), quiet
        self._on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bars: Bars | None = None
        self.done = self._first = 0
        self._began = self._told_at = time.monotonic()
        self._told = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        if self._told and kind is None:
            say.status(f"{self._title}: {self.summary()}")

    def interrupted(self) -> None:
        """Say that what is there is kept."""
        self._clear()
        say.status(f"interrupted at {self.short()}; the same command goes on there")

    def _clear(self) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin_at(self, done: int) -> None:
        """So many bytes are there from an earlier time."""
        self.done = self._first = done

    def at(self, done: int) -> None:
        """So many bytes are there now."""
        self.done = done
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done)
            return
        now = time.monotonic()
        if not self._quiet and now - self._told_at >= (QUICK_S if self._on_terminal else LINE_S):
            self._told, self._told_at = True, now
            if self._on_terminal:
                self._bars = _bars(self._title, self.total, done)
            else:
                say.status(f"{self._title}: {self.line(now)}")

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.at(self.done + count)

    def line(self, now: float) -> str:
        """ "1.2 GiB of 5.0 GiB, 98.1 MiB/s, 40s left"."""
        rate = self._rate(now)
        told = f"{self.short()}, {say.size(int(rate))}/s"
        left = (self.total or 0) - self.done
        return f"{told}, {say.duration(left / rate)} left" if rate >= 1 and left > 0 else told

    def short(self) -> str:
        """ "1.2 GiB of 5.0 GiB"."""
        of = "" if self.total is None else f" of {say.size(self.total)}"
        return f"{say.size(self.done)}{of}"

    def summary(self) -> str:
        """ "5.0 GiB in 52s, 98.1 MiB/s"."""
        now = time.monotonic()
        took = say.duration(now - self._began)
        return f"{say.size(self.done)} in {took}, {say.size(int(self._rate(now)))}/s"

    def _rate(self, now: float) -> float:
        return (self.done - self._first) / max(now - self._began, 1e-3)


def _bars(title: str, total: int | None, done: int) -> Bars:
    """One line, which redraws itself until it is stopped. A narrow one has no bar."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TaskProgressColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

    class Title(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(say.cut(task.description, _TITLE_COLUMNS))

    class Amount(ProgressColumn):
        def render(self, task: Task) -> Text:
            of = f" of {say.size(int(task.total))}" if task.total is not None else ""
            return Text(f"{say.size(int(task.completed))}{of}", style="progress.download")

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{say.size(int(speed))}/s", style="progress.data.speed")

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            seconds = task.time_remaining
            left = "" if seconds is None else f"{say.duration(seconds)} left"
            return Text(left, style="progress.remaining")

    columns = Console(stderr=True).width
    all_ = columns >= _ALL_FROM_COLUMNS
    kinds = (Amount, Rate, Left) if all_ else (Amount, Left if total is not None else Rate)
    whole = [kind(table_column=Column(no_wrap=True)) for kind in kinds]
    console = Console(stderr=True, width=columns - _ECHO_COLUMNS)
    wide = columns >= _BAR_FROM_COLUMNS
    ratio = None if wide else 1
    name = [Title(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=ratio))] if all_ else []
    bar = [BarColumn(bar_width=None)] if wide else []
    percent = [TaskProgressColumn()] if total is not None else []
    made = RichProgress(*name, *bar, *percent, *whole, console=console, transient=True, expand=all_)
    made.add_task(title, total=total, completed=done)
    made.start()
    return made
