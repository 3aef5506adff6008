"""One process from its fork to its exit record: start, limits, escalation, evidence. Knows no server and no
client."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mhnos_runtime.errors import LimitReached, MhnosError, StartFailed
from mhnos_runtime.launch import ExitRecord, LaunchPlan, ProcessDescriptors, ProcessRecord, StartDescriptors
from mhnos_runtime.output import LogWriter
from mhnos_runtime.supervisor import child as child_module
from mhnos_runtime.supervisor import tree
from mhnos_runtime.supervisor.archive import Archive, lost
from mhnos_runtime.supervisor.capture import Capture
from mhnos_runtime.supervisor.holder import Namespaces
from mhnos_runtime.supervisor.launcher import Launcher
from mhnos_runtime.supervisor.leftovers import GRACE_SECONDS
from mhnos_runtime.supervisor.loop import Timer, Watching
from mhnos_runtime.supervisor.requests import with_found
from mhnos_runtime.supervisor.state import Deadline, ProcessState
from mhnos_runtime.supervisor.surroundings import Surroundings
from mhnos_runtime.supervisor.temporary import TemporaryFolders
from mhnos_runtime.supervisor.within import Guests, Within, around, restored_around

#: When the record of a start is written: the first output has been sent by then.
SAVE_SECONDS = 0.005


class Process:
    """A started program.

    on_started: called with the error or None. on_ended: called when the exit record is there, after the last
    byte is in the log.

    Processes within this one, its guests, share its surroundings: it ends after the last of them.
    """

    on_started: Callable[[MhnosError | None], None]
    on_ended: Callable[[], None]

    def __init__(
        self,
        loop: Watching,
        archive: Archive,
        log: LogWriter,
        surroundings: Surroundings | Within,
        state: ProcessState,
        host: Process | None = None,
    ) -> None:
        """Watch a running program; see `launch` and `restore`. state: its own from now on. host: what it is
        within."""
        self.surroundings = surroundings
        self._host = host
        self._guests = Guests()
        self._loop = loop
        self._archive = archive
        self.log = log
        self._state = state
        self._orphans_gone = self._tree_gone = False
        self._defect = ""
        self._timers: list[Timer] = []
        self.capture = Capture(
            loop,
            log,
            self.pid,
            dict(state.sources),
            state.size is not None,
            state.plan.stall_ms / 1000,
            self._source_closed,
        )
        if state.verdict_fd >= 0:
            loop.watch(state.verdict_fd, self._on_verdict)
        for deadline in state.deadlines:
            self._set_timer(deadline)
        if host is not None:
            host._guests.add(self)

    @classmethod
    def launch(
        cls,
        loop: Watching,
        archive: Archive,
        launcher: Launcher,
        folders: TemporaryFolders,
        pid: int,
        plan: LaunchPlan,
        descriptors: StartDescriptors,
        namespaces: Namespaces | None,
        host: Process | None = None,
    ) -> Process:
        """Allocate the log and start. namespaces: those of the plan's holder, which end with the process.
        host: the process that it is within.

        Raises LimitReached when disk, descriptors or tasks run out.
        """
        with contextlib.ExitStack() as undo:
            # Last of all: the waiting child may be in the group, which is then removed with it.
            undo.callback(launcher.discard)
            surroundings = around(loop, launcher, folders, pid, plan, namespaces, host)
            undo.callback(surroundings.close)
            log = _new_log(archive, pid, plan)
            undo.callback(archive.remove, pid)
            undo.callback(log.close)
            child = launcher.start(plan, descriptors, surroundings)
            state = ProcessState(
                pid=pid,
                os_pid=child.os_pid,
                plan=plan.after_start(),
                log_fd=log.fd,
                input_fd=child.input_fd,
                control_fd=child.control_fd,
                verdict_fd=child.verdict_fd,
                sources=child.sources,
                size=plan.pty,
                start=time.monotonic(),
                start_time_ms=time.time_ns() // 1_000_000,
                least_kib=launcher.least_kib,
            )
            # The log is closed below.
            undo.callback(cls.abandon, loop, replace(state, log_fd=-1))
            # The kernel may watch no more descriptors for this user (epoll_ctl(2), ENOSPC).
            process = cls(loop, archive, log, surroundings, state, host)
            undo.pop_all()
        return process

    @classmethod
    def restore(
        cls,
        loop: Watching,
        archive: Archive,
        folders: TemporaryFolders,
        state: ProcessState,
        host: Process | None = None,
    ) -> Process:
        """Go on with the `state` of another supervisor, whose descriptors this one has."""
        surroundings = restored_around(loop, folders, state, host)
        process = cls(loop, archive, LogWriter(state.log_fd), surroundings, state, host)
        if process.started and process.main_status is None:
            process._watch_limits()
        elif process.main_status is not None and process.exit is None:
            loop.after(0.0, process._main_gone)  # by then its guests are restored too
        return process

    @classmethod
    def abandon(cls, loop: Watching, state: ProcessState) -> None:
        """End a process that `launch` or `restore` could not go on with, and close its descriptors."""
        if state.main_status is None:
            tree.kill([state.os_pid])
        for fd in state.own_descriptors:
            # One that could not be watched is to be closed all the same.
            with contextlib.suppress(OSError):
                loop.unwatch(fd)
            with contextlib.suppress(OSError):
                os.close(fd)

    @property
    def host(self) -> Process:
        """The process that it is within, or itself. Within a guest means within its host."""
        return self._host or self

    @property
    def plan(self) -> LaunchPlan:
        """What is kept of it, see `LaunchPlan.after_start`."""
        return self._state.plan

    @property
    def steady(self) -> bool:
        """Whether it runs and is not about to end."""
        return self.started and self.main_status is None and not self._state.end_reason

    def state(self) -> ProcessState:
        """Everything that `restore` needs."""
        return replace(self._state, sources=dict(self.capture.sources), namespaces=self.surroundings.state())

    @property
    def pid(self) -> int:
        return self._state.pid

    @property
    def os_pid(self) -> int:
        return self._state.os_pid

    @property
    def exit(self) -> ExitRecord | None:
        return self._state.exit

    @property
    def main_status(self) -> int | None:
        """The wait status of the main process, None while it runs."""
        return self._state.main_status

    @property
    def size(self) -> tuple[int, int] | None:
        """Columns and rows of the terminal; None for pipes."""
        return self._state.size

    def resized(self, columns: int, rows: int) -> None:
        """The server has set the terminal's size. Nothing for a process on pipes."""
        if self._state.size is not None:
            self._state.size = (columns, rows)

    @property
    def namespaces(self) -> Namespaces | None:
        """Its namespaces, as long as something runs in them."""
        found = self.surroundings.namespaces
        return None if found is None or found.gone else found

    @property
    def started(self) -> bool:
        """Whether the program runs or has run: the child's verdict has come."""
        return self._state.verdict_fd < 0

    @property
    def descriptors(self) -> ProcessDescriptors:
        """A server's descriptors of it. All -1 after `close`: a message about it may still wait to be
        sent."""
        return ProcessDescriptors(self.log.fd, self._state.input_fd, self._state.control_fd)

    def record(self) -> ProcessRecord:
        return ProcessRecord(
            pid=self.pid,
            os_pid=self.os_pid,
            start_time_ms=self._state.start_time_ms,
            pty=self.size,
            facts=self._state.plan.facts,
            stdin_open=self._state.input_fd >= 0,
            control=self._state.control_fd >= 0,
            exit=self.exit,
        )

    def note(self, found: dict[str, Any]) -> None:
        """Keep what the server has found out about the process, unread, for the next one. Raises BadRequest
        if a record has no room for it."""
        self._state.plan.facts.update(with_found(self._state.plan.facts, found))
        self._archive.save(self.record())

    # Start

    def _on_verdict(self) -> None:
        report = os.read(self._state.verdict_fd, 512)
        self._loop.unwatch(self._state.verdict_fd)
        os.close(self._state.verdict_fd)
        self._state.verdict_fd = -1
        if report:
            self.on_started(child_module.why_not(report, self._state.plan.argv[0]))
            return
        # Before everything that may fail, so that the request is answered in any case.
        self.on_started(None)
        if self._state.plan.timeout_ms:
            self._at(self._state.plan.timeout_ms, signal.SIGTERM, "timeout")
        self._watch_limits()
        self._loop.after(SAVE_SECONDS, self._settle)
        self.check_ended()

    def _settle(self) -> None:
        """Work that a start leaves for later: its record, and preparations for the next start."""
        if self.exit is None:
            self._archive.save(self.record())
        self._archive.prepare(self._state.plan.retention_bytes)

    def _watch_limits(self) -> None:
        self.surroundings.watch(self._roots, lambda reason: self.end(signal.SIGKILL, reason))

    def _roots(self) -> list[int]:
        """Main processes of the trees that its limits are for."""
        return [each.os_pid for each in (self, *self._guests) if each.main_status is None]

    # Input

    def close_stdin(self) -> None:
        """Close a pipe's write end. A terminal's input cannot be closed: its end of file is a character."""
        if self._state.input_fd >= 0 and self.size is None:
            os.close(self._state.input_fd)
            self._state.input_fd = -1

    # End

    def end(self, number: int, reason: str, escalate: bool = True) -> None:
        """Send a signal to the process's group and the terminal's foreground group.

        With escalate, the launch plan's signals follow until the whole tree is gone. The exit record gives
        `reason`, unless there was an earlier one.
        """
        if self.main_status is not None:
            return
        self._state.last_signal = tree.signal_name(number)
        if escalate and not self._state.end_reason:
            self._state.end_reason = reason
            for delay_ms, step in self._state.plan.escalation:
                self._at(delay_ms, step, "")
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self.main_status is not None:
            return
        if number == signal.SIGKILL:
            tree.kill([self.os_pid])
            return
        groups = {self.os_pid, self._foreground_group()}
        for group in groups - {0}:
            with contextlib.suppress(OSError):
                os.killpg(group, number)
                if self._state.end_reason:
                    os.killpg(group, signal.SIGCONT)

    def _foreground_group(self) -> int:
        if self.size is None or self._state.input_fd < 0:
            return 0
        with contextlib.suppress(OSError):
            return os.tcgetpgrp(self._state.input_fd)
        return 0

    def _at(self, delay_ms: int, number: int, reason: str) -> None:
        """Signal in so many milliseconds; with a reason, the process begins to end."""
        deadline = Deadline(time.monotonic() + delay_ms / 1000, int(number), reason)
        self._state.deadlines.append(deadline)
        self._set_timer(deadline)

    def _set_timer(self, deadline: Deadline) -> None:
        when, number, reason = deadline
        act = (lambda: self.end(number, reason)) if reason else (lambda: self._signal(number))
        self._timers.append(self._loop.after(max(0.0, when - time.monotonic()), act))

    def main_exited(self, status: int, usage: resource.struct_rusage) -> None:
        """Take the wait status of the main process; the supervisor ends its orphans."""
        self._state.main_status = status
        self._state.cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1000)
        self._state.max_rss_kib = usage.ru_maxrss
        self._state.end = time.monotonic()
        self._state.deadlines.clear()
        for timer in self._timers:
            timer.cancel()
        self._main_gone()

    def _main_gone(self) -> None:
        """What is within it ends first, then its own orphans: namespaces and control groups end with it."""
        self._guests.end()
        if not self._guests:
            self.surroundings.main_ended()

    def end_with_host(self) -> None:
        """Like an orphan of the host: it is asked to end, and killed if it does not."""
        if self.main_status is not None or self._state.with_host:
            return
        self._state.with_host = True
        self._state.end_reason = self._state.end_reason or "killed"
        for number in (signal.SIGHUP, signal.SIGTERM):
            self._state.last_signal = tree.signal_name(number)
            self._signal(number)
        self._at(round(GRACE_SECONDS * 1000), signal.SIGKILL, "")

    def _leave_host(self) -> None:
        if self._host is not None and self._host._guests.remove(self):
            # Through the loop, so that an exception is charged to that process.
            self._host._loop.after(0.0, self._host._guest_left)

    def _guest_left(self) -> None:
        if self._guests or self.exit is not None:
            return
        if self.main_status is not None:
            self.surroundings.main_ended()
        if self._orphans_gone:
            self.set_tree_gone()

    def set_tree_gone(self) -> None:
        """Nothing of the tree is left: only what is in the PTY or pipes remains to be read."""
        self._orphans_gone = True
        self._guests.end()  # they know it already, unless there was a defect
        if self._tree_gone or self._guests or not self.surroundings.when_gone(self.set_tree_gone):
            return
        self._tree_gone = True
        self.capture.drain()
        self.check_ended()

    def _source_closed(self, fd: int) -> None:
        if fd == self._state.input_fd:
            self._state.input_fd = -1
        self.check_ended()

    def check_ended(self) -> None:
        if self.exit is None and self._tree_gone and not self.capture.sources and self._state.verdict_fd < 0:
            self._state.exit = self._exit_record()
            self.surroundings.close()
            self.close_stdin()
            self._leave_host()
            self._archive.save(self.record())
            self.on_ended()

    def _exit_record(self) -> ExitRecord:
        if self.main_status is None:
            raise RuntimeError("an exit record before the exit")
        code = os.waitstatus_to_exitcode(self.main_status)
        self._state.end_reason = self.surroundings.reason(code, self._state.end_reason)
        killed_by = tree.signal_name(-code) if code < 0 else None
        # A signal that was sent without insisting can be the end too.
        own = "exit" if code >= 0 else "killed" if killed_by == self._state.last_signal else "signal"
        evidence = f"wait status {self.main_status:#06x}"
        if self._state.last_signal:
            evidence += f", after {self._state.last_signal} was sent ({self._cause()})"
        if self._defect:
            evidence += f"; ended for a defect of the runtime: {self._defect}"
        return ExitRecord(
            code=code if code >= 0 else None,
            signal=killed_by,
            reason=self._state.end_reason or own,
            evidence=evidence,
            runtime_ms=round((self._state.end - self._state.start) * 1000),
            cpu_ms=self._state.cpu_ms,
            max_rss_bytes=self._peak_memory(),
            bytes=self.log.head,
            end_time_ms=time.time_ns() // 1_000_000,
        )

    def _cause(self) -> str:
        if self._state.with_host:
            return f"ended with process {self.host.pid}"
        return self._state.end_reason or "request"

    # A defect

    def fail(self, defect: str) -> None:
        """The runtime's code for this process has raised: end this process only. defect: what and where, for
        the record. Raises nothing. After a second defect the record says only that the process is lost."""
        again, self._defect = bool(self._defect), self._defect or defect
        try:
            if again:
                self._give_up()
            elif self._state.verdict_fd >= 0:
                self._fail_start()
            elif self.exit is None:
                self._close_capture()
                self.end(signal.SIGKILL, "killed")
                self.check_ended()
        except Exception:  # the same code may fail again
            self._give_up()

    def _fail_start(self) -> None:
        self._loop.unwatch(self._state.verdict_fd)
        os.close(self._state.verdict_fd)
        self._state.verdict_fd = -1
        tree.kill([self.os_pid])
        self.on_started(StartFailed(f"a defect of the runtime: {self._defect}", code="internal"))

    def _give_up(self) -> None:
        if self.exit is not None:
            return
        self._state.exit = lost(self.log.head, f"a defect of the runtime: {self._defect}")
        with contextlib.suppress(Exception):
            tree.kill([self.os_pid] if self.main_status is None else [])
        with contextlib.suppress(Exception):
            self._guests.end()
        with contextlib.suppress(Exception):
            self.surroundings.close()
        self._leave_host()
        self._archive.save(self.record())
        self.on_ended()

    def _peak_memory(self) -> int | None:
        """Bytes; None if the kernel's figure may be that of the supervisor, of which the child was a copy
        before exec (getrusage(2): the figure is kept across execve)."""
        own = self._state.max_rss_kib * 1024 if self._state.max_rss_kib > self._state.least_kib else 0
        return max(own, self.surroundings.peak_bytes) or None

    def _close_capture(self) -> None:
        """Close the sources. Those of a terminal are the input too, whose number may soon be another's."""
        if self._state.input_fd in self.capture.sources:
            self._state.input_fd = -1
        self.capture.close()

    def close(self) -> None:
        """Close all descriptors and the log; the process must have ended, or never have started."""
        self._close_capture()
        self.close_stdin()
        if self._state.control_fd >= 0:
            os.close(self._state.control_fd)
            self._state.control_fd = -1
        self.surroundings.close()
        self._leave_host()
        self.log.close()
        self._archive.remove(self.pid)


def _new_log(archive: Archive, pid: int, plan: LaunchPlan) -> LogWriter:
    try:
        return archive.new_log(pid, plan.retention_bytes, plan.watched)
    except OSError as error:
        raise LimitReached(
            f"no room for the output log: {error.strerror}",
            code="disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "start-failed",
            hint="free some space where the state directory is, or lower the retention",
        ) from error
