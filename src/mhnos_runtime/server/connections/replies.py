"""Answers in the order of their requests, though some take longer than others. Knows no message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

#: Requests that may wait for their answers at once; after that, the next ones are not read.
MAX_WAITING = 256


class Reply:
    """The place of one answer; empty frames mean that there is none. first: all earlier answers are out."""

    __slots__ = ("_replies", "first", "frames")

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self.first = asyncio.Event()
        self.frames: tuple[bytes, ...] | None = None

    def set(self, *frames: bytes) -> None:
        """Answer. Only the first answer counts."""
        if self.frames is None:
            self.frames = frames
            self._replies.flush()


class Replies:
    """Hands answers on as soon as all earlier ones are there."""

    def __init__(self, send: Callable[[bytes], None], on_room: Callable[[], None]) -> None:
        self._send = send
        self._on_room = on_room
        self._waiting: deque[Reply] = deque()

    @property
    def full(self) -> bool:
        """Whether enough answers are outstanding."""
        return len(self._waiting) >= MAX_WAITING

    def begin(self) -> Reply:
        reply = Reply(self)
        self._waiting.append(reply)
        self._waiting[0].first.set()
        return reply

    def flush(self) -> None:
        was_full = self.full
        while self._waiting and (frames := self._waiting[0].frames) is not None:
            self._waiting.popleft()
            for frame in frames:
                self._send(frame)
        if self._waiting:
            self._waiting[0].first.set()
        if was_full and not self.full:
            self._on_room()
