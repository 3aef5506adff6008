"""What clients type, on its way to one process: written at once, or kept in a bounded queue.

Knows one descriptor; how to wait for it is handed in.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mhnos_runtime.errors import InvalidRequest, LimitReached
from mhnos_runtime.process.client_input import ClientInput
from mhnos_runtime.process.state import NotNow

#: Bytes kept for a process that does not read. A large paste fits; what a script would pour in does not.
MAX_QUEUED_BYTES = 1 << 20
#: Parts that they may be in: one is what one client typed until another did. Each costs some 300 bytes more
#: than it holds.
MAX_PARTS = 1024


@dataclass(slots=True)
class _Part:
    """Bytes that wait, of one client or of those that do not number theirs."""

    data: bytearray
    client: ClientInput | None


class Watcher(Protocol):
    """The part of an event loop that is needed here."""

    def add_writer(self, fd: int, callback: Callable[[], object]) -> object: ...

    def remove_writer(self, fd: int) -> object: ...


class InputQueue:
    """Bytes for a PTY master or a pipe, in order, each accepted byte written once.

    Owns the descriptor. closed: nothing is accepted any more.
    """

    def __init__(self, fd: int, watcher: Watcher) -> None:
        self.fd = fd
        self.closed = False
        self._watcher = watcher
        self._waiting: deque[_Part] = deque()
        self._queued_bytes = 0
        self._close_when_empty: Callable[[], None] | None = None

    def write(self, data: bytes | memoryview, client: ClientInput | None = None) -> None:
        """Accept all of `data` or nothing; `client` is told of each byte that is typed.

        Raises InvalidRequest (too-large) for what can never be accepted at once, LimitReached (input-full)
        and NotNow (input-closed).
        """
        if self.closed or self._close_when_empty is not None:
            raise NotNow("the process's standard input is closed")
        self._check_room(len(data), client)
        if not self._waiting:
            data = memoryview(data)[self._write_now(data, client) :]
        if data:
            self._enqueue(data, client)

    def _check_room(self, count: int, client: ClientInput | None) -> None:
        """Before anything is written, so that what is refused is refused whole."""
        if count > MAX_QUEUED_BYTES:
            raise InvalidRequest(
                f"{count} bytes of input at once; expected at most {MAX_QUEUED_BYTES}",
                code="too-large",
                hint="send them in parts, or push a file and have the process read it",
            )
        full = self._queued_bytes + count > MAX_QUEUED_BYTES
        crowded = len(self._waiting) >= MAX_PARTS and self._waiting[-1].client is not client
        if count and (full or crowded):
            raise LimitReached(
                f"the process has {self._queued_bytes} bytes of input that it has not read",
                code="input-full",
                hint="wait until it reads",
            )

    def _enqueue(self, data: bytes | memoryview, client: ClientInput | None) -> None:
        if not self._waiting:
            self._watcher.add_writer(self.fd, self._writable)
        if self._waiting and self._waiting[-1].client is client:
            self._waiting[-1].data += data
        else:
            self._waiting.append(_Part(bytearray(data), client))
        self._queued_bytes += len(data)

    def close_after_writing(self, done: Callable[[], None]) -> None:
        """Close once what is queued has been written, then call `done`. Does nothing the second time."""
        if self.closed or self._close_when_empty is not None:
            return
        self._close_when_empty = done
        if not self._waiting:
            self._finish()

    def close(self) -> None:
        """Close now; what is queued is dropped with the process that did not read it."""
        if self.closed:
            return
        self.closed = True
        if self._waiting:
            self._watcher.remove_writer(self.fd)
        dropped = {part.client for part in self._waiting if part.client is not None}
        self._waiting.clear()
        self._queued_bytes = 0
        os.close(self.fd)
        for client in dropped:
            client.drop()

    def _write_now(self, data: bytes | bytearray | memoryview, client: ClientInput | None) -> int:
        if client is None:
            return self._write(data)
        client.begin(len(data))
        count = 0
        try:
            count = self._write(data)
        finally:
            client.wrote(count)
        return count

    def _write(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            # EPIPE: the program closed its standard input; EIO: nobody has the terminal open any more.
            self.close()
            raise NotNow(f"the process takes no more input: {os.strerror(error.errno or 0)}") from error

    def _writable(self) -> None:
        try:
            while self._waiting:
                head = self._waiting[0]
                count = self._write_now(head.data, head.client)
                self._queued_bytes -= count
                if count < len(head.data):
                    del head.data[:count]
                    return
                self._waiting.popleft()
        except NotNow:
            return
        self._watcher.remove_writer(self.fd)
        if self._close_when_empty is not None:
            self._finish()

    def _finish(self) -> None:
        done = self._close_when_empty
        self.close()
        if done is not None:
            done()
