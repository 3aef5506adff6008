"""Answers in the order of their requests, though some take longer than others. Knows no message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

#: Requests that may wait for their answers at once; after that, the next ones are not read.
MAX_WAITING = 256


class Reply:
    """The place of one answer; empty frames mean that there is none."""

    __slots__ = ("_replies", "frames")

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self.frames: tuple[bytes, ...] | None = None

    def set(self, *frames: bytes) -> None:
        """Answer. Only the first answer counts."""
        if self.frames is None:
            self.frames = frames
            self._replies.flush()


class Replies:
    """Hands answers on as soon as all earlier ones are there."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._waiting: deque[Reply] = deque()
        self._room = asyncio.Event()
        self._room.set()

    def begin(self) -> Reply:
        reply = Reply(self)
        self._waiting.append(reply)
        if len(self._waiting) >= MAX_WAITING:
            self._room.clear()
        return reply

    async def room(self) -> None:
        """Wait until not too many answers are outstanding."""
        await self._room.wait()

    def flush(self) -> None:
        while self._waiting and (frames := self._waiting[0].frames) is not None:
            self._waiting.popleft()
            for frame in frames:
                self._send(frame)
        if len(self._waiting) < MAX_WAITING:
            self._room.set()
