"""A person at a terminal: the real command under a real PTY, whose settings outlive the command."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import sys
import termios
from collections.abc import Callable
from types import TracebackType

# The part of a login shell: leads the terminal's session, so that the end of the command does not hang it up.
_SHELL = """
import fcntl, os, signal, subprocess, sys, termios
report, hold = int(sys.argv[1]), int(sys.argv[2])
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
child = subprocess.Popen(sys.argv[3:])
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.write(report, b"%d\\n" % child.pid)
os.write(report, b"%d\\n" % child.wait())
os.read(hold, 1)
"""
WAIT_S = 40.0


class Console:
    """Use as an async context manager. `seen` is everything that the terminal was given."""

    def __init__(self, *args: str, cols: int = 90, rows: int = 20, env: dict[str, str] | None = None) -> None:
        self._args = args
        self._env = {**os.environ, **(env or {})}
        self._changed = asyncio.Event()
        self.seen = b""
        self.master, self.slave = os.openpty()
        self.resize(cols, rows)
        self.before = termios.tcgetattr(self.slave)

    async def __aenter__(self) -> Console:
        report_r, report_w = os.pipe()
        hold_r, self._hold_w = os.pipe()
        command = [sys.executable, "-m", "mhnos_runtime", *self._args]
        self._shell = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _SHELL,
            str(report_w),
            str(hold_r),
            *command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            pass_fds=(report_w, hold_r),
            start_new_session=True,
            env=self._env,
        )
        os.close(report_w)
        os.close(hold_r)
        self._report = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._report), os.fdopen(report_r, "rb", 0)
        )
        loop.add_reader(self.master, self._read)
        self.pid = int(await self._report.readline())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9) if not self._report.at_eof() else None
        os.close(self._hold_w)
        asyncio.get_running_loop().remove_reader(self.master)
        self._transport.close()
        with contextlib.suppress(ProcessLookupError):
            self._shell.kill()
        await self._shell.wait()
        os.close(self.master)
        os.close(self.slave)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def resize(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    async def until(self, text: bytes) -> None:
        """Until the terminal has been given a text."""
        await self.until_true(lambda: text in self.seen)

    async def until_true(self, condition: Callable[[], bool]) -> None:
        """Until something holds that changes with output, or soon after."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.02)

    async def until_raw(self) -> None:
        await self.until_true(lambda: not self.is_cooked())

    def is_cooked(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & termios.ICANON)

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    async def exit_code(self) -> int:
        """Of the command; a negative number for a signal."""
        async with asyncio.timeout(WAIT_S):
            return int(await self._report.readline())

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.seen += os.read(self.master, 65536)
        self._changed.set()


async def command(
    *args: str, stdin: bytes | None = None, env: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """The command without a terminal: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mhnos_runtime",
        *args,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    async with asyncio.timeout(40):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out, err
