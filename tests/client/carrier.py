"""A double of the runtime, for one process or its input alone: no connection, no time."""

from __future__ import annotations

import asyncio
from typing import Any

from mhnos_runtime.client.input_window import InputWindow
from mhnos_runtime.client.process import ClientProcess
from mhnos_runtime.client.types import InputUncertain
from mhnos_runtime.wire import messages as m


class FakeCarrier:
    """Notes what is sent. Answers come when the test says so."""

    client_name = "a client"
    retention_bytes: int | None = None

    def __init__(self) -> None:
        self.sent: list[m.Message] = []
        self.slept_s: list[float] = []
        self.window: InputWindow | None = None
        self.resynced = self.forgotten = 0
        self.asked: asyncio.Queue[tuple[m.Message, Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.uncertain: list[InputUncertain] = []

    async def request(self, message: Any, answer: Any, *, resend: bool = False, on_answer: Any = None) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((message, on_answer, future))
        return await future

    async def send_now(self, message: Any) -> None:
        if isinstance(message, bytes):
            self.frames.put_nowait(message)
        else:
            self.sent.append(message)

    async def sleep(self, delay_s: float) -> None:
        """No time passes here."""
        self.slept_s.append(delay_s)

    def tell_uncertain(self, uncertain: InputUncertain) -> None:
        self.uncertain.append(uncertain)

    def tell(self, message: Any) -> None:
        self.sent.append(message)

    def input(self, pid: int) -> InputWindow:
        if self.window is None:
            self.window = InputWindow(self, pid)
        return self.window

    def resync(self, process: ClientProcess) -> None:
        self.resynced += 1

    def forget(self, process: ClientProcess) -> None:
        self.forgotten += 1

    async def answer(self, answer: m.Message) -> m.Message:
        """Answer the next request; returns the request."""
        message, on_answer, future = await asyncio.wait_for(self.asked.get(), 10)
        if on_answer is not None:
            on_answer(answer)
        future.set_result(answer)
        return message
