"""What is typed into processes, and the size of their terminals. Knows no connection and no message."""

from __future__ import annotations

import asyncio
import termios
import time
from collections.abc import Callable, Iterable
from typing import Literal

from mhnos_runtime.errors import NotFound
from mhnos_runtime.process.client_input import ClientInput
from mhnos_runtime.process.input import InputQueue
from mhnos_runtime.process.state import Event
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.processes.link import SupervisorLink

#: What a terminal takes for the end of its input (termios(3), VEOF).
_END_OF_FILE = b"\x04"
#: A terminal's size is set again so long after the last change of it. Long enough for a program on a busy
#: machine to ask for the smaller size of a repaint, short enough not to be seen.
SETTLE_SECONDS = 0.1
#: The supervisor is told no more often than this that somebody types into a process: a key that is held down
#: repeats each 30 ms, and what a program pours into a terminal must not fill the channel.
TYPED_SECONDS = 0.02


WindowSize = Literal["latest", "smallest", "largest"]


def _each(choose: Callable[[Iterable[int]], int], sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    columns, rows = zip(*sizes, strict=True)
    return choose(columns), choose(rows)


#: The size of a terminal that several clients show, from theirs, the latest last: as tmux's `window-size`.
FITS: dict[WindowSize, Callable[[list[tuple[int, int]]], tuple[int, int]]] = {
    "latest": lambda sizes: sizes[-1],
    "smallest": lambda sizes: _each(min, sizes),
    "largest": lambda sizes: _each(max, sizes),
}


class Terminals:
    """Writes input and sets sizes. A process on pipes has input, and no size.

    window_size: whose size counts where several clients show a terminal.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: SupervisorLink, window_size: WindowSize
    ) -> None:
        self._loop = loop
        self._link = link
        self._fit = FITS[window_size]
        self._settling: dict[int, asyncio.TimerHandle] = {}

    def close(self) -> None:
        """No timer rings any more."""
        for timer in self._settling.values():
            timer.cancel()
        self._settling.clear()

    def write(self, process: Process, data: bytes | memoryview) -> None:
        """Type all of `data` or nothing. Raises NotNow and NotFound (input-closed), LimitReached
        (input-full) and InvalidRequest (too-large)."""
        self._input(process).write(data)

    def open_input(self, process: Process, client: str) -> ClientInput:
        """The numbered input of the client of this name. Raises LimitReached (too-many-clients)."""
        return process.numbered().open(client, _now_ms())

    def write_numbered(self, process: Process, client: ClientInput, offset: int, data: memoryview) -> None:
        """Type what of `data` was not accepted before. Raises InvalidRequest (input-gap) and as `write`."""
        part = client.new_part(offset, data)
        if part:
            self._input(process).write(part, client)
            client.accepted += len(part)

    def _input(self, process: Process) -> InputQueue:
        """Where to write at once. Raises NotNow and NotFound (input-closed)."""
        process.happen(Event.INPUT)
        if process.input is None:
            raise NotFound("the process's standard input is closed", code="input-closed")
        self._tell_typed(process)
        return process.input

    def _tell_typed(self, process: Process) -> None:
        """Have floods wait for what a terminal answers. The supervisor is told before the key is written,
        since an answer that comes first ends no pause."""
        now = self._loop.time()
        if process.size is not None and now >= process.typed_at + TYPED_SECONDS:
            process.typed_at = now
            self._link.typed(process.pid)

    def close_stdin(self, process: Process) -> None:
        """End a pipe's input after what was written; on a terminal, type the end-of-file character. Ignored
        where the input has ended. Raises LimitReached (input-full) on a terminal."""
        if process.input is None or process.input.closed:
            return
        if process.size is not None:
            process.input.write(_END_OF_FILE)
        else:
            process.input.close_after_writing(lambda: self._link.close_stdin(process.pid))

    def resize(self, process: Process, client: object, columns: int, rows: int) -> None:
        """A client's terminal has this size. Ignored for a process on pipes and for one that has ended."""
        if _terminal(process) is None:
            return
        process.happen(Event.RESIZED)
        process.sizes.pop(client, None)
        process.sizes[client] = (columns, rows)
        self._resize(process, *self._fit(list(process.sizes.values())))

    def leave(self, process: Process, client: object) -> None:
        """A client shows the terminal no longer: the sizes of the others count. The last one's stays."""
        if process.sizes.pop(client, None) is None or not process.sizes or _terminal(process) is None:
            return
        size = self._fit(list(process.sizes.values()))
        if size != process.size:
            self._resize(process, *size)

    def _resize(self, process: Process, columns: int, rows: int) -> None:
        process.size = (columns, rows)
        _set_size(process, columns, rows)
        self._link.size(process.pid, columns, rows)
        # A shell's line editor reads the size and sets it again before each prompt (readline, set_winsize),
        # and may undo this one by that. To set the size that is there already changes nothing.
        self._settle_size(process)

    def repaint(self, process: Process) -> None:
        """Have a full-screen program draw anew: make its terminal one row smaller (from one row, larger), and
        after a moment as before.

        Two sizes, since most programs ignore a signal that brings the size that they know; a moment, since
        they ask for the size only when they get to it. A server that ends meanwhile leaves the rest to the
        next one.
        """
        if process.size is not None and _terminal(process) is not None:
            columns, rows = process.size
            _set_size(process, columns, rows - 1 or 2)
            self._settle_size(process)

    def _settle_size(self, process: Process) -> None:
        """Set the size again, SETTLE_SECONDS after the last change of it."""
        if process.pid in self._settling:
            self._settling[process.pid].cancel()
        self._settling[process.pid] = self._loop.call_later(SETTLE_SECONDS, self.restore_size, process)

    def restore_size(self, process: Process) -> None:
        """Give a terminal the size that is on the process's record: no repaint is under way any more."""
        self._settling.pop(process.pid, None)
        if process.size is not None:
            _set_size(process, *process.size)


def _terminal(process: Process) -> int | None:
    """The descriptor to set a size with; None for a process on pipes, and for one that has ended."""
    queue = process.input
    return queue.fd if process.size is not None and queue is not None and not queue.closed else None


def _set_size(process: Process, columns: int, rows: int) -> None:
    terminal = _terminal(process)
    if terminal is not None:
        termios.tcsetwinsize(terminal, (rows, columns))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
