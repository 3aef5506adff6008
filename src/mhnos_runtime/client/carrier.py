"""What a process and its input need of the runtime that they belong to. A contract alone, without code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from mhnos_runtime.wire import messages as m

if TYPE_CHECKING:
    from mhnos_runtime.client.input_window import InputWindow
    from mhnos_runtime.client.process import ClientProcess
    from mhnos_runtime.client.types import InputUncertain

M = TypeVar("M", bound=m.Message)


class Carrier(Protocol):
    """Carries messages to the server over connections that come and go; `Runtime` is the one there is."""

    client_name: str

    async def request(
        self,
        message: m.Message,
        answer: type[M],
        *,
        resend: bool = ...,
        on_answer: Callable[[m.Message], None] | None = ...,
    ) -> M: ...
    async def send_now(self, message: m.Message | bytes) -> None: ...
    def tell(self, message: m.Message) -> None: ...
    async def sleep(self, delay_s: float) -> None: ...
    def input(self, pid: int) -> InputWindow: ...
    def tell_uncertain(self, uncertain: InputUncertain) -> None: ...
    def resync(self, process: ClientProcess) -> None: ...
    def forget(self, process: ClientProcess) -> None: ...
    @property
    def retention_bytes(self) -> int | None: ...
