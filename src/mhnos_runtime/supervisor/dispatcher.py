"""Hands a server's messages to the table of processes, and refuses messages that make no sense.

Knows messages, and what can be done to a process; not how one is started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from mhnos_runtime.channel import MOVED, TYPED, Message
from mhnos_runtime.errors import MhnosError, StartFailed
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.supervisor import requests
from mhnos_runtime.supervisor.archive import Ended
from mhnos_runtime.supervisor.defects import Defects
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.process import Process


class Table(Protocol):
    """The owner of the processes, see `Supervisor`. spawn raises the error to answer with."""

    def spawn(self, request: int, plan: LaunchPlan, descriptors: list[int]) -> None: ...

    def refuse(self, request: int, error: MhnosError) -> None: ...

    def forget(self, pid: int) -> None: ...

    def discard(self, pid: int) -> None: ...

    def keep_token(self, token: dict[str, Any] | None) -> None: ...


class Dispatcher:
    """Carries out requests about one process; passes the others to the table."""

    def __init__(
        self,
        processes: Mapping[int, Process | Ended],
        defects: Defects,
        log: Log,
        table: Table,
    ) -> None:
        self._processes = processes
        self._defects = defects
        self._log = log
        self._table = table

    def on_message(self, message: Message) -> None:
        """Raises nothing. Closes the descriptors of the message."""
        try:
            if message.kind:
                self._on_notice(message.kind, message.pid)
            else:
                self._on_request(message)
        except requests.BadRequest as error:
            self._log.write("error", "a message of the server was refused", reason=error.message)
            if error.request is not None:
                self._table.refuse(error.request, error)
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
        match request:
            case requests.Spawn():
                self._spawn(request, message.descriptors)
            case requests.Token():
                self._table.keep_token(request.token)
            case _:
                with self._defects.at_cost_of(request.pid):
                    self._do(request)

    def _spawn(self, request: requests.Spawn, descriptors: list[int]) -> None:
        try:
            self._table.spawn(request.request, request.plan, descriptors)
        except Exception as error:
            self._table.refuse(request.request, self.refusal(error))

    def refusal(self, raised: Exception) -> MhnosError:
        """The answer to a start that raised this."""
        if isinstance(raised, MhnosError):
            return raised
        self._defects.tell(raised)
        return StartFailed("a defect of the runtime; its log says more", code="internal")

    def _do(self, request: requests.AboutProcess) -> None:
        """Carry out a request about a process; without such a process it does nothing. Raises BadRequest."""
        process = self._running(request.pid)
        match request:
            case requests.Forget():
                self._table.forget(request.pid)
            case requests.Discard():
                self._table.discard(request.pid)
            case requests.Note():
                self._note(request)
            case _ if process is None:
                pass
            case requests.Kill():
                process.end(request.signal, request.reason, request.escalate)
            case requests.CloseStdin():
                process.close_stdin()
            case requests.Size():
                process.resized(request.columns, request.rows)

    def _note(self, request: requests.Note) -> None:
        """Also about a process that has ended: it may be renamed."""
        process = self._processes.get(request.pid)
        if process is not None:
            process.note(request.found)

    def _running(self, pid: int) -> Process | None:
        process = self._processes.get(pid)
        return process if isinstance(process, Process) else None
