"""From launch plan to running program: PTY or pipes, fork, set-up in the child, exec.

Knows descriptors and system calls; not what the program is for, nor who asked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import termios
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from mhnos_runtime.errors import LimitReached, MhnosError, StartFailed
from mhnos_runtime.launch import FIRST_HANDED, STDERR, STDOUT, LaunchPlan, StartDescriptors
from mhnos_runtime.supervisor import confine
from mhnos_runtime.supervisor.confine import prctl
from mhnos_runtime.supervisor.holder import Namespaces
from mhnos_runtime.supervisor.signals import reset_signals
from mhnos_runtime.supervisor.surroundings import Surroundings
from mhnos_runtime.supervisor.within import Within

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_EXIT_SETUP_FAILED = 127
# asm-generic/ioctls.h
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
#: For standard output: a writer that fills it is woken a quarter as often as with the kernel's 64 KiB.
_PIPE_BYTES = 256 * 1024
#: asm-generic/termbits.h; with it, erasing a character in cooked mode erases all of its bytes.
_IUTF8 = 0o40000


@dataclass(slots=True)
class Child:
    """A forked child and the supervisor's ends of its connections.

    sources: descriptor to stream, to be read to the end. input_fd: the PTY master or stdin's write end.
    control_fd: the other end of the socket on which the program reports where it listens, or -1. verdict_fd:
    its end means that the program runs; bytes before the end say why it does not, see `why_not`.
    """

    os_pid: int
    sources: dict[int, int]
    input_fd: int
    verdict_fd: int
    control_fd: int = -1


def become_subreaper() -> None:
    """Orphans of this process's descendants become its children (prctl(2))."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def why_not(report: bytes, program: str) -> MhnosError:
    """The error for the bytes that a child wrote to its verdict descriptor."""
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


class ChildDescriptors(NamedTuple):
    """What the child that executes a plan gets. folder: the working directory. verdict: for saying what
    failed. stdio: input, output and error; on a terminal all the same one. sibling: for the OS pid of the
    sibling that is forked inside `namespaces`; -1 without those. handed: for the program, its end of the
    control socket last."""

    folder: int
    verdict: int
    stdio: tuple[int, int, int]
    sibling: int = -1
    namespaces: tuple[int, ...] = ()
    handed: tuple[int, ...] = ()

    def sent(self) -> list[int]:
        """In the order in which they travel."""
        inside = () if self.sibling < 0 else (self.sibling, *self.namespaces)
        return [self.folder, self.verdict, *self.stdio, *inside, *self.handed]

    @classmethod
    def received(cls, descriptors: Sequence[int], handed: int) -> ChildDescriptors:
        """What `sent` sent, all of it. handed: how many there are of those, as the plan says."""
        folder, verdict, *rest = descriptors
        inside, last = rest[3 : len(rest) - handed], rest[len(rest) - handed :]
        sibling, *namespaces = inside or [-1]
        return cls(folder, verdict, (rest[0], rest[1], rest[2]), sibling, tuple(namespaces), tuple(last))


@dataclass
class Wiring:
    """All descriptors of one start. Those that are still open at the end of the block are closed."""

    pty: tuple[int, int] | None
    user: tuple[int, int] | None = None
    surroundings: Surroundings | Within | None = None
    control: bool = False
    join: list[int] = field(default_factory=list)
    sibling_reader: int = -1
    sibling_writer: int = -1
    stdio: tuple[int, int, int] = (-1, -1, -1)
    sources: dict[int, int] = field(default_factory=dict)
    input_fd: int = -1
    verdict_reader: int = -1
    verdict_writer: int = -1
    control_fd: int = -1
    their_control: int = -1
    _open: set[int] = field(default_factory=set)

    def __enter__(self) -> Wiring:
        try:
            self.verdict_reader, self.verdict_writer = self._pipe()
            if self.namespaces is not None:
                self.sibling_reader, self.sibling_writer = self._pipe()
                self.join = self.namespaces.descriptors()
                self._open.update(self.join)
            if self.control:
                self.control_fd, self.their_control = self._socket_pair()
            if self.pty is None:
                self._open_pipes()
            else:
                self._open_pty(self.pty)
        except OSError as error:
            self._close_all()
            raise _no_descriptors(error, self.pty is not None) from error
        except BaseException:
            self._close_all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close_all()

    def keep_parent_side(self, os_pid: int) -> Child:
        kept = {*self.sources, self.input_fd, self.verdict_reader, self.control_fd} - {-1}
        self._open -= kept
        for fd in kept:
            os.set_blocking(fd, False)
        return Child(os_pid, self.sources, self.input_fd, self.verdict_reader, self.control_fd)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open.update(ends)
        return ends

    def _socket_pair(self) -> tuple[int, int]:
        """One way, from program to server: the other way could pass the program a descriptor of anything that
        the server can open (unix(7), SCM_RIGHTS)."""
        pair = socket.socketpair()
        pair[0].shutdown(socket.SHUT_WR)
        ours, theirs = (sock.detach() for sock in pair)
        self._open.update((ours, theirs))
        return ours, theirs

    def _open_pty(self, size: tuple[int, int]) -> None:
        master, slave = self._pty_pair()
        if self.user is not None:
            os.fchown(slave, self.user[0], -1)
        columns, rows = size
        termios.tcsetwinsize(master, (rows, columns))
        settings = termios.tcgetattr(slave)
        settings[0] |= _IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self.stdio = slave, slave, slave
        self.sources = {master: STDOUT}
        self.input_fd = master

    def _pty_pair(self) -> tuple[int, int]:
        """The host's, or the namespaces' own, so that the terminal has a path inside (ioctl_tty(2))."""
        if self.namespaces is None:
            pair = os.openpty()
            self._open.update(pair)
            return pair
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        master = os.open(self.namespaces.multiplexer(), flags)
        self._open.add(master)
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
        self._open.add(slave)
        return master, slave

    @property
    def namespaces(self) -> Namespaces | None:
        return self.surroundings.namespaces if self.surroundings is not None else None

    def for_child(self, start: StartDescriptors) -> ChildDescriptors:
        """What the child gets, with what came with the plan."""
        control = () if self.their_control < 0 else (self.their_control,)
        return ChildDescriptors(
            start.folder,
            self.verdict_writer,
            self.stdio,
            self.sibling_writer,
            tuple(self.join),
            (*start.handed, *control),
        )

    def sibling(self, os_pid: int) -> int:
        """Wait for the child that joins the namespaces, and return the sibling that it forked inside.

        Nothing else reaps meanwhile, so a sibling that has already ended is not missed.
        """
        os.waitpid(os_pid, 0)
        for fd in (self.sibling_reader, self.verdict_reader):
            os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError):
            return int(os.read(self.sibling_reader, 32))
        report = b"namespaces:they are gone"
        with contextlib.suppress(BlockingIOError):
            report = os.read(self.verdict_reader, 512) or report
        raise why_not(report, "the program")

    def _open_pipes(self) -> None:
        child_in, self.input_fd = self._pipe()
        out, child_out = self._pipe()
        err, child_err = self._pipe()
        with contextlib.suppress(OSError):
            # Refused when the user's share of pipe memory is used up (pipe(7)).
            fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.stdio = child_in, child_out, child_err
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
    """In a fresh child: leave the supervisor's session and signals, and die when the supervisor does."""
    reset_signals()
    os.setsid()
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _be_killable()


def _be_killable() -> None:
    """Do not inherit the runtime's protection from the OOM killer (OOMScoreAdjust=): at -1000 a process is
    not killed even for its own memory limit (proc(5), oom_score_adj)."""
    with contextlib.suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        if int(score.read_text()) < 0:
            score.write_text("0")


def become(
    plan: LaunchPlan, doors: list[str], descriptors: list[int], sent: int, temporary: str = ""
) -> NoReturn:
    """Set this child up and execute the plan; what fails is written to the verdict descriptor.

    doors: files through which control groups are joined. descriptors: of ChildDescriptors, what came. sent:
    how many of them there were: with fewer, a program could start outside of a namespace. temporary: the
    folder for its temporary files, if one was made.
    """
    step = ["setup"]
    try:
        if len(descriptors) != sent:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        came = ChildDescriptors.received(descriptors, plan.handed + plan.control)
        for name in _setup(plan, doors, came, temporary):
            step[0] = name
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) and error.errno else repr(error)
        with contextlib.suppress(OSError):
            os.write(descriptors[1], f"{step[0]}:{number}".encode()[:512])
    finally:
        os._exit(_EXIT_SETUP_FAILED)


def _setup(
    plan: LaunchPlan, doors: list[str], descriptors: ChildDescriptors, temporary: str
) -> Iterator[str]:
    """Everything between fork and exec; yields the name of each step before it."""
    stdio, handed = descriptors.stdio, descriptors.handed
    yield "limits"
    for path in doors:
        join(path)
    yield "user"
    confine.become(plan.confine.user)
    if descriptors.namespaces:
        yield "namespaces"
        _go_inside(descriptors.sibling, descriptors.namespaces)
    # A change of user, like a fork, resets this.
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    yield "terminal"
    if plan.pty is not None:
        fcntl.ioctl(stdio[0], termios.TIOCSCTTY, 0)
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    yield "descriptors"
    for target, fd in enumerate(handed, FIRST_HANDED):
        os.dup2(fd, target)
    yield "directory"
    if descriptors.namespaces:
        os.chdir(plan.confine.directory)
    else:
        os.fchdir(descriptors.folder)
    os.umask(0o022)
    yield "rlimits"
    for number, soft, hard in plan.rlimits:
        resource.setrlimit(number, (soft, hard))
    yield "confinement"
    confine.lock_up(plan.confine, temporary)
    confine.close_others_at_exec()
    for target in range(FIRST_HANDED, FIRST_HANDED + len(handed)):
        os.set_inheritable(target, True)
    yield "exec"
    os.execve(plan.argv[0], plan.argv, {"TMPDIR": temporary, **plan.env} if temporary else plan.env)


def join(door: str) -> None:
    """Join a control group through this file of it. Raises OSError."""
    with open(door, "wb", 0) as file:
        file.write(b"0")


def _go_inside(sibling_writer: int, namespaces: tuple[int, ...]) -> None:
    """Join the namespaces and go on as a sibling, since only what is forked now is in the PID namespace."""
    confine.enter(namespaces)
    os_pid = confine.fork_as_sibling()
    if os_pid:
        os.write(sibling_writer, str(os_pid).encode())
        os._exit(0)
    os.setsid()
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_server(arguments: list[str], channel_fd: int, inherited: Iterable[int]) -> int:
    """Fork and exec the server with the channel and the listening sockets; return its OS pid."""
    return start_plain([sys.executable, *arguments], [channel_fd, *inherited])


def start_plain(argv: list[str], inherited: Iterable[int] = ()) -> int:
    """Fork and exec one of the runtime's own programs; return its OS pid."""
    os_pid = os.fork()
    if os_pid == 0:
        try:
            reset_signals()
            # In a group of its own: Ctrl-C on the terminal reaches only the supervisor, which then ends this.
            os.setpgid(0, 0)
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            for fd in inherited:
                os.set_inheritable(fd, True)
            os.execv(argv[0], argv)
        finally:
            os._exit(_EXIT_SETUP_FAILED)
    return os_pid
