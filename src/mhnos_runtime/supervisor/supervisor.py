"""The table of processes: a server's requests, reaping, the end, and the hand-over to a newer version.

Knows processes and messages; no network.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from mhnos_runtime.channel import OUTPUT
from mhnos_runtime.errors import LimitReached, MhnosError, Unavailable
from mhnos_runtime.launch import FORBIDDEN_PLAN, LaunchPlan, StartDescriptors
from mhnos_runtime.sandbox.allowed import Allowed
from mhnos_runtime.supervisor import cgroup, child, handover, tree
from mhnos_runtime.supervisor.archive import Archive, Ended
from mhnos_runtime.supervisor.check import Check
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.defects import Defects
from mhnos_runtime.supervisor.descriptors import check_room, duplicated, raise_limit
from mhnos_runtime.supervisor.dispatcher import Dispatcher
from mhnos_runtime.supervisor.handover import HandOver
from mhnos_runtime.supervisor.holder import Holders, Namespaces
from mhnos_runtime.supervisor.hosts import host_of
from mhnos_runtime.supervisor.keeper import ServerKeeper
from mhnos_runtime.supervisor.launcher import Launcher
from mhnos_runtime.supervisor.leftovers import Leftovers
from mhnos_runtime.supervisor.log import Log, place, shortened
from mhnos_runtime.supervisor.logfile import LogFile
from mhnos_runtime.supervisor.loop import Loop, Timer
from mhnos_runtime.supervisor.permit import permit
from mhnos_runtime.supervisor.process import Process
from mhnos_runtime.supervisor.service_manager import ServiceManager
from mhnos_runtime.supervisor.state import ProcessState
from mhnos_runtime.supervisor.temporary import TemporaryFolders

FIRST_PID = 1000

#: What a line of the log tells of an end.
_HOW = ("reason", "code", "signal")
#: How often orphans of ended main processes are checked.
LOOK_SECONDS = 0.1


class Supervisor:
    """Owns all processes and keeps one server running."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._hello = config.hello
        self._allowed = Allowed.from_dict(config.allowed)
        self._log = Log(config.log_json)
        self._defects = Defects(self._log, self._fail)
        self._loop = Loop(self._defects.tell)
        self._launcher = Launcher(self._loop, lambda: self._next_pid)
        self._holders = Holders(self._loop)
        self._archive = Archive(config.state_dir / "processes")
        self._folders = TemporaryFolders(self._loop)
        self._archive.on_set_aside = self._set_aside
        self._processes: dict[int, Process | Ended] = {}
        self._dispatcher = Dispatcher(self._processes, self._defects, self._log, self)
        self._server = ServerKeeper(
            self._loop, config, self._log, self._introduce, self._dispatcher.on_message, self._server_stopped
        )
        self._manager = ServiceManager(self._loop)
        self._server.on_alive = self._manager.ready
        self._by_os_pid: dict[int, Process] = {}
        #: Processes that the server had no descriptors for: they are being killed, and it does not know them.
        self._discarded: set[int] = set()
        self._next_pid = FIRST_PID
        self._ready_due = False
        self._leftovers: Leftovers[Process] = Leftovers(self._known)
        self._leftover_timer: Timer | None = None
        self._check = Check(self._log)
        self._handing_over = False
        self._stopping = False
        self._has_terminal = _terminal_is_there()

    def run(self, handed_over: HandOver | None = None) -> None:
        """Supervise until SIGTERM or SIGINT, then end everything and return.

        handed_over: the state of the supervisor that this one replaces. Without it, processes of earlier
        supervisors are taken over as ended.
        """
        child.become_subreaper()
        raise_limit()
        if handed_over is None:
            self._take_over_ended(self._archive.load())
        else:
            self._resume(handed_over)
        self._handle_signals()
        # A fork copies every page that is written later; the collector must not write to what exists now.
        gc.freeze()
        with contextlib.suppress(LimitReached):  # the next start tries again and reports it
            self._launcher.prepare()
        self._manager.watch()
        LogFile(self._loop, self._config.state_dir).watch()
        self._server.start()
        self._reap()
        self._loop.run()
        self._launcher.discard()
        self._loop.close()
        self._folders.close()
        self._archive.close()
        for path in self._config.remove_at_end:
            Path(path).unlink(missing_ok=True)
        for group in self._config.groups:
            cgroup.remove(group)
        self._log.write("info", "stopped")

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._stop)
        self._loop.on_signal(signal.SIGHUP, self._hang_up)
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handover.SIGNALS)

    def _take_over_ended(self, ended: list[Ended]) -> None:
        for each in ended:
            self._processes[each.pid] = each
        self._next_pid = max(self._next_pid, self._archive.highest_pid + 1)

    def _set_aside(self, pid: int, reason: str, folder: str) -> None:
        self._log.write("warning", "a record was set aside", pid=pid, reason=reason, folder=folder)

    def _fail(self, pid: int, what: str) -> None:
        process = self._running(pid)
        if process is not None:
            process.fail(what)

    # Messages to the server

    def _introduce(self) -> None:
        """Tell a new server everything, so that it goes on where the last one ended."""
        self._server.send({"event": "hello", **self._hello.to_dict()})
        for process in list(self._processes.values()):
            self._discarded.discard(process.pid)
            if process.started:
                with self._defects.at_cost_of(process.pid):
                    self._send_process("restored", process)
        self._ready_due = True
        self._say_ready()

    def _say_ready(self) -> None:
        """When nothing is under way that the server could be asked for again."""
        under_way = self._holders.under_way or not all(each.started for each in self._processes.values())
        if self._ready_due and not under_way:
            self._ready_due = False
            self._server.send({"event": "ready"})

    def _send_process(self, event: str, process: Process | Ended, **more: Any) -> None:
        body = {"event": event, "record": process.record().to_dict(), **more}

        def descriptors() -> list[int]:
            """Those that are open when the message is sent, which may be later."""
            return process.descriptors.sent()

        self._server.send(body, descriptors)

    # Requests of the server

    def _running(self, pid: int) -> Process | None:
        process = self._processes.get(pid)
        return process if isinstance(process, Process) else None

    def spawn(self, request: int, plan: LaunchPlan, descriptors: list[int]) -> None:
        """Start what the plan says, confined as the operator's policy says. The descriptors are closed after
        this. Raises what `permit` and `host_of` do, and LimitReached."""
        start = StartDescriptors.received(descriptors)
        host = host_of(plan, self._processes)
        if host is not None:
            plan = replace(plan, within=host.pid)
        confined = permit(
            self._allowed, plan, start, self._config.listeners, None if host is None else host.plan
        )
        self._check_room(confined)
        holder = confined.confine.holder
        if holder is None:
            self._launch(request, confined, start, None, None, host)
            return
        kept = duplicated(start)

        def go_on(namespaces: Namespaces | None, error: MhnosError | None) -> None:
            self._launch(request, confined, kept, namespaces, error)
            for fd in kept.sent():
                os.close(fd)
            self._say_ready()

        self._holders.take(holder, confined.confine.user, go_on)

    def _check_room(self, plan: LaunchPlan) -> None:
        """Raises LimitReached if the operator allows no more processes, or descriptors run out."""
        running = sum(each.exit is None for each in self._processes.values())
        if running + self._holders.under_way >= self._allowed.processes:
            raise LimitReached(
                f"Maximum process limit reached ({self._allowed.processes})",
                code="too-many-processes",
                hint="end a process, or raise MHNOS_MAX_PROCESSES",
            )
        check_room(plan, self._holders.under_way)

    def _launch(
        self,
        request: int,
        plan: LaunchPlan,
        descriptors: StartDescriptors,
        namespaces: Namespaces | None,
        error: MhnosError | None,
        host: Process | None = None,
    ) -> None:
        """Start it inside `namespaces`, which are then its own, or within `host`, or answer why not."""
        try:
            if error is not None:
                raise error
            if self._stopping:
                raise Unavailable("the runtime is stopping")
            pid = self._next_pid
            process = Process.launch(
                self._defects.watching(self._loop, pid),
                self._archive,
                self._launcher,
                self._folders,
                pid,
                plan,
                descriptors,
                namespaces,
                host,
            )
        except Exception as raised:
            if namespaces is not None:
                namespaces.kill()
            self.refuse(request, self._dispatcher.refusal(raised))
            return
        self._next_pid += 1
        self._take(process, request)

    def _take(self, process: Process, request: int) -> None:
        pid = process.pid
        self._processes[pid] = process
        if process.main_status is None:
            self._by_os_pid[process.os_pid] = process
        process.on_started = lambda error: self._on_started(process, request, error)
        process.capture.on_output = lambda: self._server.notify(OUTPUT, pid)
        process.on_ended = lambda: self._on_ended(process)

    def refuse(self, request: int, error: MhnosError) -> None:
        """Answer a request to start something. What is wrong with a plan may be a text of any length."""
        message, hint = shortened(error.message), shortened(error.hint)
        if error.code == FORBIDDEN_PLAN:
            self._log.write("warning", "a plan was refused", reason=message)
        self._server.send(
            {
                "event": "refused",
                "request": request,
                "code": error.code,
                "message": message,
                "hint": hint,
                "retry": error.retry,
            }
        )

    def _on_started(self, process: Process, request: int, error: MhnosError | None) -> None:
        if error is None:
            self._hello = replace(self._hello, spawned=self._hello.spawned + 1)
            self._send_process("spawned", process, request=request)
        else:
            del self._processes[process.pid]
            process.close()
            self.refuse(request, error)
        self._say_ready()

    def _on_ended(self, process: Process) -> None:
        if process.pid in self._discarded:
            self._discarded.discard(process.pid)
            self._drop(process)
        elif process.started and process.exit is not None:
            end = process.exit.to_dict()
            told = self._server.send({"event": "exited", "pid": process.pid, "exit": end})
            if not told:
                how = {name: end[name] for name in _HOW if end[name] is not None}
                self._log.write("info", "process ended", process=process.pid, **how)
        self._stop_server()

    def forget(self, pid: int) -> None:
        """Remove an ended process with its output."""
        process = self._processes.get(pid)
        if process is not None and process.exit is not None:
            self._drop(process)

    def discard(self, pid: int) -> None:
        """The server could not take a process over: end it, since none may run that it cannot list and end.

        It counts until its last process is gone, and a server that comes meanwhile is told of it.
        """
        process = self._running(pid)
        if process is None or process.exit is not None:
            self.forget(pid)
            return
        self._log.write("error", "the server could not take a process over; ending it", pid=pid)
        self._discarded.add(pid)
        process.end(signal.SIGKILL, "killed")

    def _drop(self, process: Process | Ended) -> None:
        del self._processes[process.pid]
        process.close()

    def keep_token(self, token: dict[str, Any] | None) -> None:
        """Keep what a server knows of the token, unread, for the next server."""
        self._hello = replace(self._hello, token=token)

    # Reaping

    def _reap(self) -> None:
        while True:
            try:
                os_pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if os_pid == 0:
                break
            try:
                self._reaped(os_pid, status, usage)
            except Exception as error:  # there may be other ended children, which are not reported again
                self._defects.tell(error)
        self._end_leftovers()

    def _reaped(self, os_pid: int, status: int, usage: resource.struct_rusage) -> None:
        if os_pid == self._server.os_pid:
            self._server.ended(status)
        elif os_pid == self._check.os_pid:
            self._checked(status)
        elif os_pid == self._launcher.os_pid:
            self._launcher.lost()
        elif os_pid == self._folders.os_pid:
            self._folders.reaped()
        else:
            process = self._by_os_pid.pop(os_pid, None)
            if process is not None:
                with self._defects.at_cost_of(process.pid):
                    process.main_exited(status, usage)
            self._leftovers.reaped(os_pid, process)
            self._holders.reaped(os_pid)

    def _known(self) -> set[int]:
        """Children that are no orphans."""
        own = {self._server.os_pid, self._check.os_pid, self._launcher.os_pid, self._folders.os_pid}
        return {*own, *self._by_os_pid, *self._holders.os_pids}

    def _end_leftovers(self) -> None:
        """A process has ended when nothing of its tree is left."""
        again = True
        try:
            for process in self._leftovers.end():
                if self._processes.get(process.pid) is process:
                    with self._defects.at_cost_of(process.pid):
                        process.set_tree_gone()
            again = self._leftovers.some
        finally:
            if again and self._leftover_timer is None:
                self._leftover_timer = self._loop.after(LOOK_SECONDS, self._look_again)
        self._stop_server()

    def _look_again(self) -> None:
        self._leftover_timer = None
        self._reap()

    # The end

    def _stop(self) -> None:
        """End all processes, then the server. The second time: at once."""
        if self._stopping:
            tree.kill(self._by_os_pid)
            return
        self._stopping = True
        self._manager.stopping()
        self._holders.close()
        self._log.write("info", "stopping", processes=len(self._by_os_pid))
        for process in list(self._by_os_pid.values()):
            with self._defects.at_cost_of(process.pid):
                process.end(signal.SIGTERM, "stopped")
        self._loop.after(self._config.stop_grace_ms / 1000, lambda: tree.kill(self._by_os_pid))
        self._reap()

    def _stop_server(self) -> None:
        """Once it has been told of every end, so that clients learn it."""
        if self._stopping and self._all_ended():
            self._server.stop()

    def _all_ended(self) -> bool:
        return not self._leftovers.some and all(each.exit is not None for each in self._processes.values())

    def _server_stopped(self) -> None:
        if not self._stopping:
            self._hand_over()
        elif self._all_ended():
            self._loop.stop()

    # Reload

    def _hang_up(self) -> None:
        """SIGHUP asks for a reload or, when the terminal is gone, for an end."""
        if self._has_terminal and not _terminal_is_there():
            self._stop()
        elif not self._stopping and not self._check.os_pid and not self._handing_over:
            self._check.start(self._config.own, self._hello.settings)

    def _checked(self, status: int) -> None:
        settings = self._check.ended(status)
        if settings is None or self._stopping:
            return
        self._hello = replace(self._hello, settings=settings)
        self._log.write("info", "reloading", processes=len(self._by_os_pid))
        self._handing_over = True
        self._manager.reloading()
        self._server.stop()

    def _hand_over(self) -> None:
        try:
            self._replace()
        except Exception as error:
            self._log.write("error", "the new version could not be started; going on", error=place(error))
            self._handing_over = False
            self._handle_signals()
            self._server.resume()

    def _replace(self) -> None:
        """Does not return. Raises OSError."""
        state = HandOver(
            replace(self._config, hello=self._hello),
            self._next_pid,
            processes=self._states(),
            ended=[each.pid for each in self._processes.values() if isinstance(each, Ended)],
            networks=self._holders.state(),
            folders=self._folders.state(),
        )
        self._launcher.discard()
        handover.replace(state)

    def _states(self) -> list[ProcessState]:
        """Of all running processes. One whose state cannot be read is not handed over, and so ends."""
        states = []
        for process in list(self._processes.values()):
            if isinstance(process, Process):
                with self._defects.at_cost_of(process.pid):
                    states.append(process.state())
        return states

    def _resume(self, state: HandOver) -> None:
        self._holders.restore(state.networks)
        self._folders.restore(state.folders)
        handover.keep_to_oneself(fd for each in state.networks for fd in each.namespaces.descriptors)
        for each in state.processes:
            try:
                self._restore(each)
            except Exception as error:
                self._not_restored(each, error)
        self._take_over_ended(self._archive.load(state.ended))
        self._next_pid = max(self._next_pid, state.next_pid)

    def _restore(self, state: ProcessState) -> None:
        handover.keep_to_oneself(state.descriptors)
        watching = self._defects.watching(self._loop, state.pid)
        host = self._running(state.plan.within)
        if state.plan.within and host is None:
            raise LookupError(f"process {state.plan.within}, which it is within, is not there")
        process = Process.restore(watching, self._archive, self._folders, state, host)
        if process.namespaces is not None:
            self._holders.adopt(process.namespaces)
        self._take(process, 0)
        if process.main_status is not None and process.exit is None:
            self._leftovers.reaped(process.os_pid, process)

    def _not_restored(self, state: ProcessState, error: Exception) -> None:
        """A process that cannot be restored, for example since its log is damaged: unknown processes are
        ended as orphans, and its files are kept."""
        pid = state.pid
        self._defects.tell(error, process=pid)
        self._processes.pop(pid, None)
        self._by_os_pid.pop(state.os_pid, None)
        Process.abandon(self._loop, state)
        self._archive.set_aside(pid, "it could not be taken over")


def _terminal_is_there() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
