"""From launch plan to running program: PTY or pipes, fork, set-up in the child, exec.

Knows descriptors and system calls; not what the program is for, nor who asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import sys
import termios
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from mhnos_runtime.errors import LimitReached, MhnosError, StartFailed
from mhnos_runtime.launch import STDERR, STDOUT, LaunchPlan

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]

_EXIT_SETUP_FAILED = 127
#: A writer that fills it is woken a quarter as often as with the kernel's own 64 KiB.
_PIPE_BYTES = 256 * 1024
#: asm-generic/termbits.h; erasing a character in cooked mode then erases all of its bytes.
_IUTF8 = 0o40000


@dataclass(slots=True)
class Child:
    """A forked child and the supervisor's ends of what connects it.

    sources: descriptor to stream, to be read until their end. input_fd: the PTY master or stdin's write end.
    verdict_fd: at its end the program runs; what can be read before is why it does not, see `why_not`.
    """

    os_pid: int
    sources: dict[int, int]
    input_fd: int
    verdict_fd: int


def become_subreaper() -> None:
    """Orphans of this process's descendants become its children (prctl(2))."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def why_not(report: bytes, program: str) -> MhnosError:
    """The error for what a child wrote to its verdict descriptor."""
    step, _, number = report.decode(errors="replace").partition(":")
    code = int(number) if number.isdigit() else 0
    if step == "exec" and code == errno.ENOENT and os.path.exists(program):
        return StartFailed(
            f"{program}: its interpreter is not there",
            code="not-found",
            hint="look at its first line, or at the loader that it was built for",
        )
    if step == "exec" and code in (errno.ENOENT, errno.ENOTDIR):
        return StartFailed(f"{program}: no such program", code="not-found", hint="is it installed?")
    if step == "exec" and code in (errno.EACCES, errno.ENOEXEC, errno.EISDIR):
        return StartFailed(
            f"{program}: not executable", code="not-executable", hint=f"chmod +x {os.path.basename(program)}"
        )
    reason = os.strerror(code) if code else number or "unknown reason"
    return StartFailed(f"{program}: could not be started ({step}: {reason})")


@dataclass
class Wiring:
    """All descriptors of one start; what is still open at the end of the block is closed."""

    pty: tuple[int, int] | None
    stdio: list[int] = field(default_factory=list)
    sources: dict[int, int] = field(default_factory=dict)
    input_fd: int = -1
    verdict_reader: int = -1
    verdict_writer: int = -1
    _open: set[int] = field(default_factory=set)

    def __enter__(self) -> Wiring:
        try:
            self.verdict_reader, self.verdict_writer = self._pipe()
            if self.pty is None:
                self._open_pipes()
            else:
                self._open_pty(self.pty)
        except OSError as error:
            self._close_all()
            raise _no_descriptors(error, self.pty is not None) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._close_all()

    def keep_parent_side(self, os_pid: int) -> Child:
        kept = {*self.sources, self.input_fd, self.verdict_reader}
        self._open -= kept
        for fd in kept:
            os.set_blocking(fd, False)
        return Child(os_pid, self.sources, self.input_fd, self.verdict_reader)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open.update(ends)
        return ends

    def _open_pty(self, size: tuple[int, int]) -> None:
        master, slave = os.openpty()
        self._open.update((master, slave))
        columns, rows = size
        termios.tcsetwinsize(master, (rows, columns))
        settings = termios.tcgetattr(slave)
        settings[0] |= _IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self.stdio = [slave, slave, slave]
        self.sources = {master: STDOUT}
        self.input_fd = master

    def _open_pipes(self) -> None:
        child_in, self.input_fd = self._pipe()
        out, child_out = self._pipe()
        err, child_err = self._pipe()
        with contextlib.suppress(OSError):
            # Refused when the user's share of pipe memory is used up (pipe(7)).
            fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.stdio = [child_in, child_out, child_err]
        self.sources = {out: STDOUT, err: STDERR}

    def _close_all(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()


def _no_descriptors(error: OSError, pty: bool) -> MhnosError:
    if pty and error.errno in (errno.ENOSPC, errno.ENOENT, errno.EIO):
        return LimitReached(
            "no pseudo-terminal is left on this machine",
            code="no-pty",
            hint="end some terminals, or raise /proc/sys/kernel/pty/max",
        )
    return none_left(f"no descriptors for another process: {error.strerror}")


def none_left(message: str) -> LimitReached:
    return LimitReached(
        message,
        code="start-failed",
        hint="end some processes, or raise the limit of open files (ulimit -n, LimitNOFILE)",
    )


def detach() -> None:
    """In a fresh child: be nobody's but the supervisor's, and end with it."""
    _reset_signals()
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def become(plan: LaunchPlan, cwd_fd: int, verdict_fd: int, stdio: list[int]) -> NoReturn:
    """Set this child up and execute the plan; what fails is written to the verdict descriptor.

    stdio: standard input, output and error, on a terminal all the same one.
    """
    step = ["setup"]
    try:
        for name in _setup(plan, cwd_fd, stdio):
            step[0] = name
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) and error.errno else repr(error)
        with contextlib.suppress(OSError):
            os.write(verdict_fd, f"{step[0]}:{number}".encode()[:512])
    finally:
        os._exit(_EXIT_SETUP_FAILED)


def _setup(plan: LaunchPlan, cwd_fd: int, stdio: list[int]) -> Iterator[str]:
    """Everything between fork and exec, naming each step before it is taken."""
    yield "terminal"
    if plan.pty is not None:
        fcntl.ioctl(stdio[0], termios.TIOCSCTTY, 0)
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    yield "directory"
    os.fchdir(cwd_fd)
    os.umask(0o022)
    yield "limits"
    for number, soft, hard in plan.rlimits:
        resource.setrlimit(number, (soft, hard))
    yield "exec"
    os.execve(plan.argv[0], plan.argv, plan.env)


#: What is ignored stays so over exec, what has a handler does not (execve(2)). Python ignores SIGPIPE and
#: SIGXFSZ; whoever started the supervisor may have ignored more.
_IGNORED = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]


def _reset_signals() -> None:
    # The wake-up descriptor is shared with the parent: nothing may be written to it from here.
    signal.set_wakeup_fd(-1)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def start_server(arguments: list[str], channel_fd: int, inherited: list[int]) -> int:
    """Fork and exec the server with the channel and the listening sockets; return its OS pid."""
    return start_plain([sys.executable, *arguments], [channel_fd, *inherited])


def start_plain(argv: list[str], inherited: Iterable[int] = ()) -> int:
    """Fork and exec one of the runtime's own programs; return its OS pid."""
    os_pid = os.fork()
    if os_pid == 0:
        try:
            _reset_signals()
            # In a group of its own: Ctrl-C on the terminal reaches the supervisor alone, which ends it in
            # order.
            os.setpgid(0, 0)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            for fd in inherited:
                os.set_inheritable(fd, True)
            os.execv(argv[0], argv)
        finally:
            os._exit(_EXIT_SETUP_FAILED)
    return os_pid
