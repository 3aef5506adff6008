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

    def unwatch(self, pid: int, vanished: bool = False) -> None:
        """vanished: the client may come back for what it missed."""
        viewer = self._viewers.pop(pid, None)
        if viewer is not None:
            # In this order: an ended process may be forgotten with the last one who reads its log.
            viewer.drop(vanished)
            self._lifetimes.leave(viewer.process, viewer)

    def unwatch_all(self, vanished: bool) -> None:
        for pid in list(self._viewers):
            self.unwatch(pid, vanished)
