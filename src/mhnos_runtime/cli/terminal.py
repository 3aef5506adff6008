"""The local terminal: raw mode that is always undone, its size, input and output beside the event loop.

Knows file descriptors; knows nothing of processes or connections. Never sets O_NONBLOCK: the descriptors may
be
shared with the shell that started this command, and would stay so after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import termios
import threading
import tty
from collections import deque
from collections.abc import Iterator
from types import TracebackType

from mhnos_runtime.cli.descriptors import write_all
from mhnos_runtime.client.types import PtySize

READ_BYTES = 65536
# bytes waiting for the terminal or pipe; two reads deep, so that one is written while the next is prepared
SINK_HIGH_WATER_BYTES = 128 * 1024


def size_of(fd: int) -> PtySize:
    """The terminal's size; 80x24 for one that has never been told (a serial line says 0x0)."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return PtySize()
    return PtySize(min(size.columns, 2000) or 80, min(size.lines, 2000) or 24)


class RawMode:
    """A context in which the terminal passes every key on. Leaving it restores what was there before."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[object] | None = None

    def __enter__(self) -> RawMode:
        self._saved = termios.tcgetattr(self._fd)
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def enter(self) -> None:
        """Raw mode, again: after a stop and a continue."""
        tty.setraw(self._fd, termios.TCSADRAIN)

    def restore(self) -> None:
        """The settings from before. A terminal that is gone needs none."""
        if self._saved is None:
            return
        with contextlib.suppress(termios.error, OSError), _ignoring(signal.SIGTTOU):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]

    def stop_self(self) -> None:
        """Stop as the default action of SIGTSTP does, with a usable terminal meanwhile."""
        self.restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()


@contextlib.contextmanager
def _ignoring(number: signal.Signals) -> Iterator[None]:
    """Restoring from the background must not stop this command instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


class Source:
    """Reads a descriptor in a thread, one chunk ahead at most; works for terminals, pipes and files alike.

    A thread, since epoll refuses regular files; it polls before it reads, so that it can be stopped without
    swallowing a key that is meant for the next command.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._permits = threading.Semaphore(1)
        self._stopped = False
        self._wake_r, self._wake_w = os.pipe()
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""
        chunk = await self._chunks.get()
        self._permits.release()
        return chunk

    def close(self) -> None:
        """Ends the thread; what it has read already is dropped."""
        if not self._stopped:
            self._stopped = True
            self._permits.release()
            os.close(self._wake_w)

    def _run(self) -> None:
        try:
            chunk = b" "
            while chunk and self._permits.acquire() and not self._stopped:
                chunk = self._read_blocking()
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
        except RuntimeError:
            pass  # the loop is closed: nobody reads any more
        finally:
            os.close(self._wake_r)

    def _read_blocking(self) -> bytes:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._wake_r, select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._wake_r in ready:
                return b""
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""  # EIO: the terminal has gone


class Sink:
    """Writes to a descriptor in a thread, so that a paused pager or terminal does not stop the event loop."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._lock = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._error: OSError | None = None
        threading.Thread(target=self._run, name=f"fd{fd}", daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Queue bytes; waits while too many wait already. Raises the OSError of an earlier write."""
        await self._below(SINK_HIGH_WATER_BYTES)
        with self._lock:
            self._chunks.append(data)
            self._waiting_bytes += len(data)
            self._lock.notify()

    async def flush(self) -> None:
        """Until everything has been written. Raises as write does."""
        await self._below(1)

    async def _below(self, mark_bytes: int) -> None:
        while True:
            self._changed.clear()
            if self._error is not None:
                raise self._error
            if self._waiting_bytes < mark_bytes:
                return
            await self._changed.wait()

    def _run(self) -> None:
        while self._error is None:
            with self._lock:
                while not self._chunks:
                    self._lock.wait()
                chunk = self._chunks.popleft()
            try:
                write_all(self._fd, chunk)
            except OSError as error:
                self._error = error
            with self._lock:
                self._waiting_bytes -= len(chunk)
            try:
                self._loop.call_soon_threadsafe(self._changed.set)
            except RuntimeError:
                return
