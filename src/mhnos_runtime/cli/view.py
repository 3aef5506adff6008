"""What a verb shows of a process's output: some of its lines, with times or without, safe for terminals.
Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mhnos_runtime.cli.lines import LastLines, Matching, Stamper, gap_in_words
from mhnos_runtime.cli.questions import Quiet
from mhnos_runtime.cli.screen import Modes
from mhnos_runtime.client.types import Gap, Output, Stream

Piece: TypeAlias = tuple[Stream, bytes]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is shown. last: lines at the end of what is kept. until: an offset. stamped: with times."""

    last: int | None = None
    pattern: re.Pattern[str] | None = None
    until: int | None = None
    stamped: bool = False


class View:
    """Takes output in order and says what to write to which stream. `shown`: whether anything was to be."""

    def __init__(
        self, selection: Selection, timeline: Sequence[tuple[int, int]], terminals: Sequence[Stream]
    ) -> None:
        self.shown = False
        self._until = selection.until
        self._matching = Matching(selection.pattern) if selection.pattern is not None else None
        self._last = LastLines(selection.last) if selection.last is not None else None
        self._stamper = Stamper(timeline) if selection.stamped else None
        self._quiet = Quiet(*terminals)
        self._modes = Modes() if "stdout" in terminals else None

    def live_from(self, offset: int) -> None:
        """What comes from here on is written now: its time is that of its arrival."""
        if self._stamper is not None:
            self._stamper.live_from = offset

    def feed(self, item: Output | Gap) -> Iterator[Piece]:
        """The next output, or the gap in it."""
        for each in self._selected(item):
            if self._last is None:
                yield from self._pieces(each)
            else:
                self._last.feed(each)

    def settle(self) -> Iterator[Piece]:
        """All that was kept has come; what follows is shown as it comes."""
        last, self._last = self._last, None
        for item in last.items() if last is not None else ():
            yield from self._pieces(item)

    def end(self) -> Iterator[Piece]:
        """Nothing follows."""
        for item in self._matching.rest() if self._matching is not None else ():
            if self._last is not None:
                self._last.feed(item)
            else:
                yield from self._pieces(item)
        yield from self.settle()
        if self._modes is not None and self._modes.touched:
            yield "stdout", self._modes.undo()

    def _selected(self, item: Output | Gap) -> list[Output | Gap]:
        if isinstance(item, Gap) and item.from_ == 0 and self._last is not None:
            return []  # the last lines do not begin there
        if isinstance(item, Output) and self._until is not None and item.next > self._until:
            data = item.data[: max(0, self._until - item.offset)]
            item = Output(item.stream, item.offset, data, item.replay)
        return [item] if self._matching is None else self._matching.feed(item)

    def _pieces(self, item: Output | Gap) -> Iterator[Piece]:
        if isinstance(item, Gap):
            yield "stderr", f"[{gap_in_words(item)}]\n".encode()
            return
        self.shown = True
        data = self._quiet.feed(item.stream, item.data)
        if self._modes is not None:
            self._modes.feed(data)
        if self._stamper is not None:
            data = self._stamper.feed(Output(item.stream, item.offset, data))
        yield item.stream, data
