"""Namespaces and their holders: one bubblewrap for each process, and one spare, so that starts do not wait.

Knows bubblewrap's descriptors and the kernel's namespace files; not what runs inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

from mhnos_runtime import title
from mhnos_runtime.bounds import MAX_PID
from mhnos_runtime.errors import LimitReached, MhnosError, StartFailed
from mhnos_runtime.launch import Holder
from mhnos_runtime.proc import children
from mhnos_runtime.supervisor import confine, namespace_files, tree
from mhnos_runtime.supervisor.loop import Loop, Timer, Watching
from mhnos_runtime.supervisor.signals import reset_signals

#: How often to check what a program left behind, and how long that may take to end by itself.
LOOK_SECONDS = 0.05
LEFTOVER_SECONDS = 1.0
#: When the next spare is made, which takes a CPU some 15 ms: the program that was just started runs by then.
REFILL_SECONDS = 0.02
_MESSAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HolderKey:
    """Holders with the same key are interchangeable."""

    spec: Holder
    user: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class NamespacesState:
    """Namespaces that are ready, for the next supervisor."""

    os_pid: int
    init: int
    input_fd: int
    init_fd: int

    @property
    def descriptors(self) -> tuple[int, int]:
        return self.input_fd, self.init_fd


@dataclass(frozen=True, slots=True)
class NetworkState:
    """A network that holders share."""

    key: HolderKey
    namespaces: NamespacesState


class Namespaces:
    """One running holder.

    os_pid: bubblewrap's own. init: the first process inside; when it dies, all others there die. gone:
    nothing is left inside.
    """

    def __init__(self, loop: Watching, os_pid: int) -> None:
        self.os_pid = os_pid
        self.key: HolderKey | None = None
        self.init = 0
        self.gone = False
        self.on_gone: Callable[[], None] = lambda: None
        self._loop = loop
        self._error: MhnosError | None = None
        self._waiting: list[Callable[[MhnosError | None], None]] = []
        self._input_fd = -1
        self._init_fd = -1
        self._pipes: _Pipes | None = None

    @classmethod
    def start(cls, loop: Watching, key: HolderKey, join: list[int]) -> Namespaces:
        """Fork a holder. Raises OSError when descriptors or tasks run out, and leaves nothing then."""
        pipes, os_pid = _start(key, join)
        self = cls(loop, os_pid)
        self.key = key
        self._pipes = pipes
        self._input_fd = pipes.input
        try:
            loop.watch(pipes.answer, self._on_answer)
        except OSError:
            self.kill()
            os.close(pipes.input)
            pipes.close_readers()
            raise
        return self

    @classmethod
    def restore(cls, loop: Watching, state: NamespacesState) -> Namespaces:
        """Namespaces of another supervisor, whose descriptors this one has, as `state` describes them."""
        self = cls(loop, state.os_pid)
        self.init, self._input_fd, self._init_fd = state.init, state.input_fd, state.init_fd
        return self

    def state(self) -> NamespacesState:
        """What `restore` needs, once they are ready."""
        return NamespacesState(self.os_pid, self.init, self._input_fd, self._init_fd)

    @property
    def ready(self) -> bool:
        return self._init_fd >= 0

    def when_ready(self, callback: Callable[[MhnosError | None], None]) -> None:
        """Call back once, now or later, with None or with the reason why there are no namespaces."""
        if self.ready or self._error is not None:
            callback(self._error)
        else:
            self._waiting.append(callback)

    def _on_answer(self) -> None:
        pipes, self._pipes = self._pipes, None
        if pipes is None:
            return
        self._loop.unwatch(pipes.answer)
        if _read(pipes.answer):
            self.init = _child_pid(_read(pipes.status))
        if not self.init:
            self._error = _no_namespaces(_read(pipes.errors))
        pipes.close_readers()
        if self.init:
            try:
                self._init_fd = os.pidfd_open(self.init)
            except OSError as error:
                self._error = _no_more(error)
                self.kill()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback(self._error)

    def descriptors(self) -> list[int]:
        """Namespaces to join, see `namespace_files.opened`; the caller closes them. Raises OSError."""
        return namespace_files.opened(self.init)

    def network_descriptors(self) -> list[int]:
        """The user namespace that owns the network, and the network; the caller closes them. Raises as
        `descriptors`."""
        return namespace_files.opened_network(self.init)

    def multiplexer(self) -> str:
        """The path to /dev/ptmx inside."""
        return os.path.join(f"/proc/{self.init}", "root", "dev/pts/ptmx")

    @property
    def in_memory(self) -> tuple[str, ...]:
        """Paths to the writable file systems inside that are in memory."""
        root = f"/proc/{self.init}/root"
        return (f"{root}/tmp", f"{root}/dev/shm")  # noqa: S108

    def kill(self) -> None:
        """Kill everything inside. os_pid can be reaped after the last process is gone."""
        with contextlib.suppress(OSError):
            if self.ready:
                signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
            elif not self.gone:
                os.kill(self.os_pid, signal.SIGKILL)

    def wind_down(self) -> None:
        """The program has ended: ask its orphans to end, and kill them when they do not."""
        tree.ask_to_end(self.left_behind())
        self._look(0.0)

    def _look(self, waited: float) -> None:
        if self.gone:
            return
        if waited >= LEFTOVER_SECONDS or not self.left_behind():
            self.kill()
        else:
            self._timer: Timer = self._loop.after(LOOK_SECONDS, lambda: self._look(waited + LOOK_SECONDS))

    def left_behind(self) -> list[int]:
        """Orphans of programs inside: the children of the first process, without the oldest, which is the
        holder's own command."""
        return [] if self.gone or not self.init else children(self.init)[1:]

    def ended(self) -> None:
        """bubblewrap has been reaped, so everything inside is gone."""
        self.gone = True
        self._on_answer()
        for fd in (self._input_fd, self._init_fd):
            if fd >= 0:
                os.close(fd)
        self._input_fd = self._init_fd = -1
        self.on_gone()


#: Called with namespaces, or with the reason why there are none.
Taken = Callable[[Namespaces | None, MhnosError | None], None]


class Holders:
    """All namespaces of a supervisor: those in use, one spare, and networks that several share."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._all: dict[int, Namespaces] = {}
        self._spare: Namespaces | None = None
        self._networks: dict[HolderKey, Namespaces] = {}
        self._closing = False
        #: How many requests for namespaces are not answered yet.
        self.under_way = 0

    @property
    def os_pids(self) -> set[int]:
        """OS pids of holders, which are not orphans of a program."""
        return set(self._all)

    def take(self, spec: Holder, user: tuple[int, int] | None, then: Taken) -> None:
        """Hand over namespaces that are ready, now or later; the taker winds them down."""
        key = HolderKey(spec, user)
        self.under_way += 1
        if not spec.network:
            self._take(key, [], then)
            return
        try:
            network = self._network(key)
        except OSError as error:
            self._answer(then, None, _no_more(error))
            return

        def go_on(error: MhnosError | None) -> None:
            if error is not None:
                self._answer(then, None, error)
                return
            try:
                join = network.network_descriptors()
            except OSError as reason:
                self._answer(then, None, _no_more(reason))
                return
            try:
                self._take(key, join, then)
            finally:
                for fd in join:
                    os.close(fd)

        network.when_ready(go_on)

    def _take(self, key: HolderKey, join: list[int], then: Taken) -> None:
        found, self._spare = self._spare, None
        if found is not None and (found.key != key or found.gone):
            found.kill()
            found = None
        try:
            namespaces = found or self._start(key, join)
        except OSError as error:
            self._answer(then, None, _no_more(error))
            return

        def hand_over(error: MhnosError | None) -> None:
            self._answer(then, None if error else namespaces, error)
            if error is None:
                self._loop.after(REFILL_SECONDS, lambda: self._refill(key))

        namespaces.when_ready(hand_over)

    def _answer(self, then: Taken, namespaces: Namespaces | None, error: MhnosError | None) -> None:
        self.under_way -= 1
        then(namespaces, error)

    def _refill(self, key: HolderKey) -> None:
        """Make a spare like the last one. If that fails, the next request for one fails."""
        if self._closing or self._spare is not None:
            return
        join: list[int] = []
        with contextlib.suppress(OSError):
            if key.spec.network:
                network = self._network(key)
                if not network.ready:
                    return
                join = network.network_descriptors()
            self._spare = self._start(key, join)
        for fd in join:
            os.close(fd)

    def _network(self, key: HolderKey) -> Namespaces:
        own = HolderKey(replace(key.spec, options=key.spec.network, files=(), network=()), key.user)
        found = self._networks.get(own)
        if found is None or found.gone:
            found = self._networks[own] = self._start(own, [])
        return found

    def _start(self, key: HolderKey, join: list[int]) -> Namespaces:
        namespaces = Namespaces.start(self._loop, key, join)
        self._all[namespaces.os_pid] = namespaces
        return namespaces

    def reaped(self, os_pid: int) -> None:
        """A child has ended: note it if it was a holder."""
        namespaces = self._all.pop(os_pid, None)
        if namespaces is None:
            return
        namespaces.ended()
        if namespaces is self._spare:
            self._spare = None

    def adopt(self, namespaces: Namespaces) -> None:
        """Take over namespaces that were restored."""
        self._all[namespaces.os_pid] = namespaces

    def state(self) -> list[NetworkState]:
        """The shared networks, for `restore`. The spare is ended."""
        if self._spare is not None:
            self._spare.kill()
        return [NetworkState(key, each.state()) for key, each in self._networks.items() if each.ready]

    def restore(self, networks: list[NetworkState]) -> None:
        for each in networks:
            namespaces = self._networks[each.key] = Namespaces.restore(self._loop, each.namespaces)
            self.adopt(namespaces)

    def close(self) -> None:
        """Make no more, and end those that no program uses."""
        self._closing = True
        for namespaces in (*self._networks.values(), self._spare):
            if namespaces is not None:
                namespaces.kill()


@dataclass(slots=True)
class _Pipes:
    """The supervisor's ends. input: the holder's command waits on it, and ends when it is closed."""

    input: int
    answer: int
    status: int
    errors: int

    def close_readers(self) -> None:
        for fd in (self.answer, self.status, self.errors):
            os.close(fd)


def _start(key: HolderKey, join: list[int]) -> tuple[_Pipes, int]:
    """Fork bubblewrap. Raises OSError when descriptors or tasks run out."""
    theirs: list[int] = []
    ours: list[int] = []
    try:
        for index in range(4):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            mine, other = (writer, reader) if index == 0 else (reader, writer)
            ours.append(mine)
            theirs.append(other)
            os.set_blocking(mine, False)
        pipes = _Pipes(*ours)
        os.write(pipes.input, b"\n")
        for _path, text in key.spec.files:
            theirs.append(_file(text))  # one by one: if the next fails, these are closed
        os_pid = os.fork()
        if os_pid == 0:
            _run(key, theirs, join)
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return pipes, os_pid


def _run(key: HolderKey, descriptors: list[int], join: list[int]) -> None:
    """The child's part; does not return."""
    try:
        reset_signals()
        os.setsid()
        confine.become(key.user)
        confine.enter(join)
        stdin, stdout, status, stderr, *files = descriptors
        options = [*key.spec.options, "--json-status-fd", str(status)]
        for fd, (path, _text) in zip(files, key.spec.files, strict=True):
            options += ["--perms", "0444", "--ro-bind-data", str(fd), path]
        # By a descriptor: what is in the arguments, ps shows to everybody, here and inside.
        told = _file("\0".join([*options, "--remount-ro", "/"]) + "\0")
        for fd in (status, told, *files):
            os.set_inheritable(fd, True)
        for target, fd in enumerate((stdin, stdout, stderr)):
            os.dup2(fd, target)
        arguments = [title.title(title.SANDBOX), "--args", str(told), "--", *key.spec.command]
        os.execve(key.spec.program, arguments, {})
    except BaseException as error:
        os.write(descriptors[3], f"{key.spec.program}: {error}".encode())
    finally:
        os._exit(127)


def _file(text: str) -> int:
    fd = os.memfd_create("file", os.MFD_CLOEXEC)
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _MESSAGE_BYTES)
    except BlockingIOError:
        return b""


def _child_pid(status: bytes) -> int:
    """The first process inside, as bubblewrap reports it; 0 if that makes no sense."""
    try:
        os_pid = json.loads(status.split(b"\n")[0])["child-pid"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return 0
    return os_pid if isinstance(os_pid, int) and 0 < os_pid <= MAX_PID else 0


def _no_namespaces(text: bytes) -> MhnosError:
    reason = text.decode(errors="replace").strip() or "bubblewrap was killed"
    return StartFailed(
        f"the sandbox could not be made: {reason}", hint="mhnos-runtime doctor tells what is missing"
    )


def _no_more(error: OSError) -> MhnosError:
    return LimitReached(
        f"no room for another sandbox: {error.strerror}",
        code="start-failed",
        hint="end some processes, or raise the limits of open files and tasks (ulimit -n, ulimit -u)",
    )
