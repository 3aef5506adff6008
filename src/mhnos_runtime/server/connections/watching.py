"""What one client watches: a viewer for each process. Knows no frame and no message."""

from __future__ import annotations

from collections.abc import Callable

from mhnos_runtime.process.table import Process
from mhnos_runtime.server.connections.viewer import Viewer
from mhnos_runtime.server.processes.lifetimes import Lifetimes


class Watching:
    """binary: how the client takes output. ready: called with a viewer that has something to hand out."""

    def __init__(self, lifetimes: Lifetimes, binary: bool, ready: Callable[[Viewer], None]) -> None:
        self._lifetimes = lifetimes
        self._binary = binary
        self._ready = ready
        self._viewers: dict[int, Viewer] = {}
        # Processes whose records wait for this client, see Lifetimes.wait_for.
        self._waited_for: dict[int, Process] = {}

    def get(self, pid: int) -> Viewer | None:
        return self._viewers.get(pid)

    def watch(
        self,
        process: Process,
        start: int,
        acknowledges: bool,
        on_replayed: Callable[[Viewer], None] | None = None,
    ) -> None:
        """Watch a process from an offset; see Viewer. A viewer that was there before goes once the new one
        holds what it needs."""
        viewer = Viewer(
            process,
            start,
            binary=self._binary,
            wake=self._ready,
            acknowledges=acknowledges,
            on_replayed=on_replayed,
        )
        self._lifetimes.enter(process, viewer, viewer.wake)
        self.unwatch(process.pid)
        self._viewers[process.pid] = viewer
        self._ready(viewer)

    def started(self, process: Process) -> None:
        """The client has asked for the start of a process, and is about to be answered."""
        self._wait_for(process)

    def finished(self, pid: int) -> None:
        """Everything is sent of a process that has ended."""
        self._wait_for(self._viewers[pid].process)
        self.unwatch(pid)

    def _wait_for(self, process: Process) -> None:
        if process.facts.remove:
            kept = {pid: each for pid, each in self._waited_for.items() if not each.forgotten}
            self._waited_for = {**kept, process.pid: process}
            self._lifetimes.wait_for(process, self)

    def unwatch(self, pid: int, vanished: bool = False) -> None:
        """vanished: the client may come back for what it missed."""
        viewer = self._viewers.pop(pid, None)
        if viewer is not None:
            # In this order: an ended process may be forgotten with the last one who reads its log.
            viewer.drop(vanished)
            self._lifetimes.leave(viewer.process, viewer)

    def unwatch_all(self, vanished: bool) -> None:
        """The client is gone for now, or for good."""
        for pid, viewer in list(self._viewers.items()):
            if vanished:
                self._wait_for(viewer.process)
            self.unwatch(pid, vanished)
        waited_for, self._waited_for = self._waited_for, {}
        over = self._lifetimes.has_vanished if vanished else self._lifetimes.has_got_all
        for process in waited_for.values():
            over(process, self)
