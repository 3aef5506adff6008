"""What one client types: text with halves of characters, binary frames, numbered input. Knows no socket."""

from __future__ import annotations

from collections.abc import Callable

from mhnos_runtime.errors import InvalidRequest, MhnosError
from mhnos_runtime.process.client_input import ClientInput
from mhnos_runtime.process.state import NotNow
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.processes.terminals import Terminals
from mhnos_runtime.wire import frames, text
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.faults import error_message


class Typing:
    """What is typed into one process by `write`: halves of characters and line ends between two of them."""

    def __init__(self, process: Process) -> None:
        self._joiner = text.SurrogateJoiner()
        self._lines = text.PipeInput() if process.size is None else None

    def feed(self, data: str) -> bytes:
        joined = self._joiner.feed(data)
        return joined if self._lines is None else self._lines.feed(joined)


class Input:
    """get: a process that the client may see. tell: sends what is no answer. fail: answers an error that is
    about no request."""

    def __init__(
        self,
        terminals: Terminals,
        get: Callable[[int], Process | None],
        tell: Callable[[m.Message], None],
        fail: Callable[[m.Message], None],
    ) -> None:
        self._terminals = terminals
        self._get = get
        self._tell = tell
        self._fail = fail
        self._typing: dict[int, Typing] = {}
        self._numbered: dict[int, tuple[ClientInput, Callable[[int], None]]] = {}

    def write(self, process: Process, data: str) -> None:
        """Type text. Raises as Terminals.write."""
        typing = self._typing.get(process.pid)
        if typing is None:
            self._forget_ended()
            typing = self._typing[process.pid] = Typing(process)
        try:
            self._terminals.write(process, typing.feed(data))
        except MhnosError:
            self._typing.pop(process.pid, None)
            raise

    def take(self, frame: frames.DataFrame) -> None:
        """Type what a binary frame has. What is wrong with it is answered."""
        try:
            if frame.kind != frames.INPUT:
                raise InvalidRequest("a client sends no output", code="invalid-message")
            process = self._get(frame.pid)
            if frame.flags & frames.NUMBERED:
                self._take_numbered(process, frame)
            # A pid that is not there is ignored, as in protocol 1.0.
            elif process is not None:
                self._terminals.write(process, frame.payload)
        except MhnosError as error:
            pid = frame.pid if frame.kind == frames.INPUT else None
            self._fail(error_message(error, pid=pid))

    def _take_numbered(self, process: Process | None, frame: frames.DataFrame) -> None:
        opened = self._numbered.get(frame.pid)
        if process is None or opened is None:
            raise InvalidRequest(
                "numbered input that was not opened", code="not-negotiated", hint="send openInput first"
            )
        client = opened[0]
        if frame.offset + len(frame.payload) <= client.typed:
            # A repetition: its first acknowledgement was lost.
            self._tell(m.InputAck(process.pid, client.typed))
        self._terminals.write_numbered(process, client, frame.offset, frame.payload)

    def number(self, process: Process, name: str) -> ClientInput:
        """From now on this connection hears what of this client's input was typed, and of no other client's
        into this process. Raises LimitReached (too-many-clients)."""
        client = self._terminals.open_input(process, name)
        self._forget_ended()
        self._release(process.pid)

        def tell(typed: int) -> None:
            self._tell(m.InputAck(process.pid, typed))

        def dropped() -> None:
            self._fail(error_message(NotNow("the process takes no more input"), pid=process.pid))

        client.on_typed, client.on_dropped = tell, dropped
        self._numbered[process.pid] = (client, tell)
        return client

    def forget(self, pid: int) -> None:
        """The process has ended."""
        self._typing.pop(pid, None)
        self._release(pid)

    def leave(self) -> None:
        """The connection ends."""
        for pid in list(self._numbered):
            self._release(pid)

    def _release(self, pid: int) -> None:
        """Leave the numbered client that is open to other connections, and to others if there is no room."""
        client, told = self._numbered.pop(pid, (None, None))
        # Another connection of the same client may have taken it over.
        if client is not None and client.on_typed is told:
            client.on_typed = client.on_dropped = None

    def _forget_ended(self) -> None:
        """Bound this state: a client may type into any number of processes that it does not watch."""
        for pid in {*self._typing, *self._numbered}:
            process = self._get(pid)
            if process is None or process.exit is not None:
                self.forget(pid)
