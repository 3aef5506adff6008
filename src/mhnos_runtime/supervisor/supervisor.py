"""The table of processes, the control channel, and the server's life. Knows what a server may ask; no
network."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhnos_runtime import proc
from mhnos_runtime.channel import MOVED, OUTPUT, Channel, Disconnected, Message
from mhnos_runtime.errors import MhnosError, Unavailable
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.supervisor import cgroup, tree
from mhnos_runtime.supervisor import child as child_module
from mhnos_runtime.supervisor.holder import Holders, Namespaces
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.loop import EPOLLIN, EPOLLOUT, Loop, Timer
from mhnos_runtime.supervisor.process import Process

FIRST_PID = 1000

#: How long what a main process left behind may take to end by itself before it is killed.
LEFTOVER_SECONDS = 1.0
#: A tree that the kernel does not end within this time (an uninterruptible read) is given up, and said so.
UNKILLABLE_SECONDS = 10.0
#: A server that lived shorter than this is started again only after a pause.
SHORT_LIFE_SECONDS = 2.0
MAX_RESTART_PAUSE_SECONDS = 5.0
#: How long a server may take to say goodbye to its clients.
SERVER_STOP_SECONDS = 3.0


@dataclass(frozen=True)
class Config:
    """What the supervisor is started with.

    server: arguments for the Python interpreter. listeners: descriptors of listening sockets, which stay open
    over all servers. hello: what each server is told first, unread. remove_at_end: files that say that it
    runs. groups: directories of cgroups, to be removed at the end too.
    """

    server: list[str]
    listeners: list[int]
    state_dir: Path
    stop_grace_ms: int
    hello: dict[str, Any]
    log_json: bool
    remove_at_end: list[str]
    groups: list[str]


class Supervisor:
    """Owns all processes and one server at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = Loop()
        self._log = Log(config.log_json)
        self._holders = Holders(self._loop)
        self._directory = config.state_dir / "processes"
        self._processes: dict[int, Process] = {}
        self._by_os_pid: dict[int, Process] = {}
        self._next_pid = FIRST_PID
        self._spawned = 0
        self._channel: Channel | None = None
        self._server_os_pid = 0
        self._server_start = 0.0
        self._short_lives = 0
        self._leftovers: dict[int, float] = {}
        self._leftover_timer: Timer | None = None
        self._stopping = False
        self._requests: dict[str, Callable[[dict[str, Any], list[int]], None]] = {
            "spawn": self._spawn,
            "kill": self._kill,
            "close_stdin": self._close_stdin,
            "size": self._size,
            "forget": self._forget,
        }

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, then end everything and return."""
        child_module.become_subreaper()
        _raise_descriptor_limit()
        _clear(self._directory)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._stop)
        self._loop.on_signal(signal.SIGHUP, self._restart_server)
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        # A fork copies what either side writes to later; what is there now is not looked at again.
        gc.freeze()
        self._start_server()
        self._loop.run()
        self._loop.close()
        _clear(self._directory)
        for path in self._config.remove_at_end:
            Path(path).unlink(missing_ok=True)
        for group in self._config.groups:
            cgroup.remove(group)

    # The server

    def _start_server(self) -> None:
        ours, theirs = Channel.pair()
        with theirs:
            arguments = [*self._config.server, str(theirs.fileno())]
            self._server_os_pid = child_module.start_server(
                arguments, theirs.fileno(), self._config.listeners
            )
        self._server_start = time.monotonic()
        self._channel = Channel(ours)
        self._loop.watch(self._channel.fileno(), self._on_channel)
        self._introduce()

    def _introduce(self) -> None:
        """Tell a new server everything, so that it can go on where another one ended."""
        self._send({"event": "hello", "spawned": self._spawned, **self._config.hello})
        for process in list(self._processes.values()):
            if process.started:
                self._send_process("restored", process)
        self._send({"event": "ready"})

    def _send_process(self, event: str, process: Process, **more: Any) -> None:
        descriptors = [process.log.fd]
        if process.input_fd >= 0:
            descriptors.append(process.input_fd)
        self._send({"event": event, "record": process.record().to_dict(), **more}, descriptors)

    def _send(self, body: dict[str, Any], descriptors: list[int] | None = None) -> None:
        self._use_channel(lambda channel: channel.send(body, descriptors))

    def _use_channel(self, action: Callable[[Channel], None]) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            action(channel)
        except Disconnected:
            self._drop_channel()
            return
        events = EPOLLIN | EPOLLOUT if channel.pending else EPOLLIN
        if events != channel.events:
            channel.events = events
            self._loop.watch(channel.fileno(), self._on_channel, events)

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None
            # A server that closed its end without exiting must not linger beside its successor.
            tree.send([self._server_os_pid] if self._server_os_pid else [], signal.SIGKILL)

    def _restart_server(self) -> None:
        self._log.write("info", "restarting the server", os_pid=self._server_os_pid)
        tree.send([self._server_os_pid] if self._server_os_pid else [], signal.SIGTERM)

    def _server_ended(self, status: int) -> None:
        self._server_os_pid = 0
        self._drop_channel()
        if self._stopping:
            self._loop.stop()
            return
        lived = time.monotonic() - self._server_start
        self._short_lives = self._short_lives + 1 if lived < SHORT_LIFE_SECONDS else 0
        code = os.waitstatus_to_exitcode(status)
        level = "info" if code in (0, -signal.SIGTERM) else "error"
        self._log.write(
            level, "the server ended; starting it again", code=code, processes=len(self._processes)
        )
        pause = min(MAX_RESTART_PAUSE_SECONDS, 0.5 * max(0, self._short_lives - 1))
        self._loop.after(pause, lambda: None if self._stopping else self._start_server())

    def _on_channel(self) -> None:
        self._use_channel(self._take_message)

    def _take_message(self, channel: Channel) -> None:
        channel.flush()
        message = channel.receive()
        if message is not None:
            self._on_message(message)

    def _on_message(self, message: Message) -> None:
        try:
            if message.kind == MOVED:
                process = self._processes.get(message.pid)
                if process is not None:
                    process.resume()
                return
            self._requests[message.body["do"]](message.body, message.descriptors)
        finally:
            for fd in message.descriptors:
                os.close(fd)

    # What a server may ask

    def _spawn(self, body: dict[str, Any], descriptors: list[int]) -> None:
        request = body["request"]
        plan = LaunchPlan.from_dict(body["plan"])
        holder = plan.confine.holder
        if holder is None or self._stopping:
            self._start(request, plan, descriptors[0], None)
            return
        cwd_fd = os.dup(descriptors[0])

        def go_on(namespaces: Namespaces | None, error: MhnosError | None) -> None:
            try:
                if error is not None:
                    self._refuse(request, error)
                else:
                    self._start(request, plan, cwd_fd, namespaces)
            finally:
                os.close(cwd_fd)

        self._holders.take(holder, plan.confine.user, go_on)

    def _start(self, request: int, plan: LaunchPlan, cwd_fd: int, namespaces: Namespaces | None) -> None:
        pid = self._next_pid
        try:
            if self._stopping:
                raise Unavailable("the runtime is stopping")
            process = Process(self._loop, pid, plan, cwd_fd, self._directory / f"{pid}.log", namespaces)
        except MhnosError as error:
            if namespaces is not None:
                namespaces.kill()
            self._refuse(request, error)
            return
        self._next_pid += 1
        self._processes[pid] = self._by_os_pid[process.os_pid] = process
        process.on_started = lambda error: self._on_started(process, request, error)
        process.on_output = lambda: self._use_channel(lambda channel: channel.notify(OUTPUT, pid))
        process.on_ended = lambda: self._on_ended(process)

    def _refuse(self, request: int, error: MhnosError) -> None:
        self._send(
            {
                "event": "refused",
                "request": request,
                "code": error.code,
                "message": error.message,
                "hint": error.hint,
                "retry": error.retry,
            }
        )

    def _on_started(self, process: Process, request: int, error: MhnosError | None) -> None:
        if error is None:
            self._spawned += 1
            self._send_process("spawned", process, request=request)
            if process.exit is not None:
                self._on_ended(process)
            return
        del self._processes[process.pid]
        process.close()
        self._refuse(request, error)

    def _on_ended(self, process: Process) -> None:
        if process.started and process.exit is not None:
            self._send({"event": "exited", "pid": process.pid, "exit": process.exit.to_dict()})

    def _kill(self, body: dict[str, Any], _descriptors: list[int]) -> None:
        process = self._processes.get(body["pid"])
        if process is not None:
            process.end(body["signal"], body["reason"], body["escalate"])

    def _close_stdin(self, body: dict[str, Any], _descriptors: list[int]) -> None:
        process = self._processes.get(body["pid"])
        if process is not None:
            process.close_stdin()

    def _size(self, body: dict[str, Any], _descriptors: list[int]) -> None:
        process = self._processes.get(body["pid"])
        if process is not None:
            process.size = (body["columns"], body["rows"])

    def _forget(self, body: dict[str, Any], _descriptors: list[int]) -> None:
        process = self._processes.get(body["pid"])
        if process is not None and process.exit is not None:
            del self._processes[process.pid]
            process.close()

    # Reaping

    def _reap(self) -> None:
        while True:
            try:
                os_pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if os_pid == 0:
                break
            self._reaped(os_pid, status, usage)
        self._end_leftovers()

    def _reaped(self, os_pid: int, status: int, usage: resource.struct_rusage) -> None:
        if os_pid == self._server_os_pid:
            self._server_ended(status)
            return
        process = self._by_os_pid.pop(os_pid, None)
        if process is not None:
            process.main_exited(status, usage)
        self._holders.reaped(os_pid)
        self._leftovers.pop(os_pid, None)

    def _end_leftovers(self) -> None:
        """End what ended main processes left behind: all children that are neither a main process nor the
        server.

        They get a hang-up and a SIGTERM first. A process counts as ended when no leftover is there any more.
        """
        known = {self._server_os_pid, *self._by_os_pid, *self._holders.os_pids}
        current = [os_pid for os_pid in proc.children(os.getpid()) if os_pid not in known]
        now = time.monotonic()
        self._leftovers = {os_pid: self._leftovers.get(os_pid, now) for os_pid in current}
        late = [os_pid for os_pid, since in self._leftovers.items() if now - since >= LEFTOVER_SECONDS]
        new = [os_pid for os_pid, since in self._leftovers.items() if since == now]
        tree.kill(late)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
            tree.send(proc.descendants(new), number)
        stuck = [since for since in self._leftovers.values() if now - since >= UNKILLABLE_SECONDS]
        if len(stuck) == len(self._leftovers):
            self._trees_gone()
        elif self._leftover_timer is None:
            self._leftover_timer = self._loop.after(LEFTOVER_SECONDS / 10, self._look_again)

    def _look_again(self) -> None:
        self._leftover_timer = None
        self._reap()

    def _trees_gone(self) -> None:
        for process in self._processes.values():
            if process.tree_going:
                process.set_tree_gone()
        if self._stopping and not self._by_os_pid and not self._holders.os_pids:
            self._stop_server()

    # The end

    def _stop(self) -> None:
        """End all processes, then the server. A second time: at once."""
        if self._stopping:
            tree.kill(self._by_os_pid)
            return
        self._stopping = True
        self._holders.close()
        self._log.write("info", "stopping", processes=len(self._by_os_pid))
        for process in self._by_os_pid.values():
            process.end(signal.SIGTERM, "killed")
        self._loop.after(self._config.stop_grace_ms / 1000, lambda: tree.kill(self._by_os_pid))
        self._reap()

    def _stop_server(self) -> None:
        if not self._server_os_pid:
            self._loop.stop()
            return
        server = [self._server_os_pid]
        tree.send(server, signal.SIGTERM)
        self._loop.after(SERVER_STOP_SECONDS, lambda: tree.send(server, signal.SIGKILL))


def _clear(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.glob("*.log"):
        path.unlink(missing_ok=True)


def _raise_descriptor_limit() -> None:
    """Use what the machine allows: a process costs the supervisor three descriptors and the server two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Run with the configuration that `serve` left in the descriptor named by the first argument.

    The others are descriptors that it keeps: the lock and the listening sockets."""
    for fd in sys.argv[2:]:
        # The lock and the listening sockets: a process that had them could serve in this server's place.
        os.set_inheritable(int(fd), False)
    with open(int(sys.argv[1]), "rb") as file:
        data = json.load(file)
    Supervisor(Config(**{**data, "state_dir": Path(data["state_dir"])})).run()
