"""What a server says, given to whom it concerns; what makes no sense is refused, and costs nothing else.

Knows messages, and what can be done to a process; not how one is started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from mhnos_runtime.channel import MOVED, TYPED, Message
from mhnos_runtime.errors import MhnosError, StartFailed
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.supervisor import requests
from mhnos_runtime.supervisor.archive import Ended
from mhnos_runtime.supervisor.defects import Defects
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.process import Process


class Asked:
    """spawn(request, plan, descriptors) starts a process or refuses the request; the descriptors are closed
    after it. refuse(request, why) answers a request; forget(pid) removes an ended process."""

    def __init__(
        self,
        processes: Mapping[int, Process | Ended],
        defects: Defects,
        log: Log,
        spawn: Callable[[int, LaunchPlan, list[int]], None],
        refuse: Callable[[int, MhnosError], None],
        forget: Callable[[int], None],
    ) -> None:
        self._processes = processes
        self._defects = defects
        self._log = log
        self._spawn = spawn
        self._refuse = refuse
        self._forget = forget

    def on_message(self, message: Message) -> None:
        """Raises nothing. Closes the descriptors that came with it."""
        try:
            if message.kind:
                self._on_notice(message.kind, message.pid)
            else:
                self._on_request(message)
        except requests.BadRequest as error:
            self._log.write("error", "a message of the server was refused", reason=error.message)
            if error.request is not None:
                self._refuse(error.request, error)
        finally:
            for fd in message.descriptors:
                os.close(fd)

    def _on_notice(self, kind: bytes, pid: int) -> None:
        process = self._running(pid)
        if process is None:
            return
        with self._defects.at_cost_of(pid):
            if kind == MOVED:
                process.capture.resume()
            elif kind == TYPED:
                process.capture.typed()

    def _on_request(self, message: Message) -> None:
        request = requests.parse(message.body)
        if not isinstance(request, requests.Spawn):
            with self._defects.at_cost_of(request.pid):
                self._do(request)
            return
        try:
            self._spawn(request.request, request.plan, message.descriptors)
        except Exception as error:
            self._refuse(request.request, self.refusal(error))

    def refusal(self, raised: Exception) -> MhnosError:
        """What to answer a start with that has raised this."""
        if isinstance(raised, MhnosError):
            return raised
        self._defects.tell(raised)
        return StartFailed("a defect of the runtime; its log says more", code="internal")

    def _do(self, request: requests.AboutProcess) -> None:
        """Requests about a process, which are nothing where there is none. Raises BadRequest."""
        process = self._running(request.pid)
        match request:
            case requests.Forget():
                self._forget(request.pid)
            case _ if process is None:
                pass
            case requests.Kill():
                process.end(request.signal, request.reason, request.escalate)
            case requests.CloseStdin():
                process.close_stdin()
            case requests.Size() if process.size is not None:
                process.size = (request.columns, request.rows)
            case requests.Note():
                process.note(request.facts)

    def _running(self, pid: int) -> Process | None:
        process = self._processes.get(pid)
        return process if isinstance(process, Process) else None
