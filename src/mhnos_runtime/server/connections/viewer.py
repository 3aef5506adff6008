"""One client's view of one process: a cursor, and how what it finds becomes frames.

Replay, live output, gaps and the exit are one ordered stream. Knows no socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from mhnos_runtime.launch import STDERR, STDOUT
from mhnos_runtime.output import Chunk, Cursor, Overrun
from mhnos_runtime.output.layout import BURST_BYTES
from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.connections.shown import exit_message, ports, ready
from mhnos_runtime.wire import encode, frames, text
from mhnos_runtime.wire import messages as m

_NAMES: dict[int, m.Stream] = {STDOUT: "stdout", STDERR: "stderr"}
_KINDS = {STDOUT: frames.STDOUT, STDERR: frames.STDERR}


class Frame(NamedTuple):
    """What goes into one WebSocket message: a text, or a header and a body that is not copied behind it."""

    head: bytes
    body: bytes
    binary: bool


def text_frame(data: bytes) -> Frame:
    return Frame(data, b"", False)


class Encoding(Protocol):
    """How output becomes frames for one viewer."""

    def chunk(self, chunk: Chunk, replay: bool) -> Frame | None: ...

    def rest(self, offset: int, /) -> list[Frame]:
        """What incomplete characters leave, once there is nothing more or something is missing."""


class BinaryEncoding:
    """Raw bytes behind a fixed header."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def chunk(self, chunk: Chunk, replay: bool) -> Frame:
        flags = frames.REPLAY if replay else 0
        return Frame(
            frames.pack_header(_KINDS[chunk.stream], flags, self._pid, chunk.offset), chunk.data, True
        )

    def rest(self, _offset: int, /) -> list[Frame]:
        return []


class TextEncoding:
    """Text as in protocol 1.0: a character that is split between chunks appears in the one that completes
    it."""

    def __init__(self, process: Process, offset: int) -> None:
        self._pid = process.pid
        self._decoder = text.TextDecoder()
        for stream, name in _NAMES.items():
            self._decoder.restore(name, process.log.before(offset, stream, text.CARRY_BYTES))

    def chunk(self, chunk: Chunk, replay: bool) -> Frame | None:
        name = _NAMES[chunk.stream]
        characters = self._decoder.feed(name, chunk.data)
        if not characters:
            return None
        time_ms = chunk.time_ms if replay else None
        return text_frame(encode.output_text(name, self._pid, characters, chunk.offset, chunk.next, time_ms))

    def rest(self, offset: int, /) -> list[Frame]:
        left = [(name, self._decoder.flush(name)) for name in _NAMES.values()]
        return [
            text_frame(encode.output_text(name, self._pid, text_, offset, offset))
            for name, text_ in left
            if text_
        ]


class Viewer:
    """Hands out one frame at a time.

    wake: called when a viewer that sleeps has something to hand out again. acknowledges: the client says what
    it has used, and holds the rest; else it holds what has not been handed out. on_replayed: None, or called
    once, when all that was kept at the beginning has been handed out or the viewer is dropped; it tells the
    client the facts about the process.

    finished: the exit has been handed out, and nothing will follow. gone: set when the viewer was dropped.
    queued: the sender's own mark.
    """

    def __init__(
        self,
        process: Process,
        start: int,
        *,
        binary: bool,
        wake: Callable[[Viewer], None],
        acknowledges: bool = False,
        on_replayed: Callable[[Viewer], None] | None = None,
    ) -> None:
        self.process = process
        self.start = max(start, process.log.tail)
        self.replay_end = process.log.head
        self.queued = False
        self.finished = False
        self.gone = asyncio.Event()
        self._pending: deque[Frame] = deque()
        self._cursor = Cursor(process.log, start)
        self._encoding: Encoding = BinaryEncoding(process.pid) if binary else TextEncoding(process, start)
        self._wake = wake
        self._acknowledges = acknowledges
        self._on_replayed = on_replayed
        self._told = UNKNOWN
        self._tells_facts = binary
        self._hold = process.holds.enter(start)
        if binary and on_replayed is not None and self.replay_end > self.start:
            replay = m.Replay(process.pid, self.start, self.replay_end)
            self._pending.append(text_frame(encode.encode(replay)))

    @property
    def lag(self) -> int:
        """Bytes that it is behind."""
        return self._cursor.lag

    def wake(self) -> None:
        self._wake(self)

    def acknowledge(self, offset: int) -> None:
        """The client has used everything below `offset`, and from now on that is what it holds."""
        self._acknowledges = True
        self._hold.move(min(offset, self._cursor.offset))

    def drop(self, vanished: bool) -> None:
        """Hand out nothing more. An attach that is still under way is over. vanished: see Hold.leave."""
        self._hold.leave(vanished)
        self.finished = True
        self._pending.clear()
        self._replayed()
        self.gone.set()

    def put_back(self, frame: Frame) -> None:
        """Hand this frame out again, before all others."""
        self._pending.appendleft(frame)

    def next_frame(self) -> Frame | None:
        """The next frame, or None when the viewer sleeps until it is woken, or has finished."""
        while True:
            if self._pending:
                return self._pending.popleft()
            if self.finished:
                return None
            if self._on_replayed is None and self._tells_facts and self._tell_facts():
                continue
            limit = self._limit()
            if limit <= 0:
                self._replayed()
                continue
            if self.process.log.head > self._cursor.offset:
                item = self._cursor.take(limit)
                if item is not None:
                    self._take(item)
            elif self._sleeps():
                return None

    def _limit(self) -> int:
        """A replay ends exactly where it was said to."""
        if self._on_replayed is None:
            return BURST_BYTES
        return min(BURST_BYTES, self.replay_end - self._cursor.offset)

    def _take(self, item: Chunk | Overrun) -> None:
        if isinstance(item, Overrun):
            self._pending.extend(self._encoding.rest(item.from_))
            self._pending.append(text_frame(encode.encode(m.Gap(self.process.pid, item.from_, item.to))))
            self._hold.skip(item.to)
            return
        frame = self._encoding.chunk(item, self._on_replayed is not None)
        if frame is not None:
            self._pending.append(frame)
        if not self._acknowledges:
            self._hold.move(item.next)

    def _tell_facts(self) -> bool:
        """Whether there was news of the process's readiness or ports."""
        facts, before = self.process.facts, self._told
        if facts is before:
            return False
        self._told = facts
        if facts.ports != before.ports:
            self._pending.append(text_frame(encode.encode(m.Ports(self.process.pid, ports(self.process)))))
        readiness = ready(self.process)
        if facts.ready != before.ready and readiness is not msgspec.UNSET:
            news = m.Ready(self.process.pid, readiness.state, readiness.reason)
            self._pending.append(text_frame(encode.encode(news)))
        return bool(self._pending)

    def _replayed(self) -> None:
        done, self._on_replayed = self._on_replayed, None
        if done is not None:
            self._told = self.process.facts
            done(self)

    def _sleeps(self) -> bool:
        offset = self._cursor.offset
        ended = self.process.exit
        if ended is None:
            return self.process.log.park(offset)
        self._pending.extend(self._encoding.rest(offset))
        self._pending.append(text_frame(encode.encode(exit_message(self.process, ended))))
        self.finished = True
        return False
