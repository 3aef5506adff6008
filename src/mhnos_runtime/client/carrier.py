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
    ) -> M:
        """Send it and wait for its answer, see Runtime.request."""

    async def send_now(self, message: m.Message | bytes) -> None:
        """Send a message or a frame that needs no answer; without a connection it is dropped. Raises
        nothing."""

    def tell(self, message: m.Message) -> None:
        """As send_now, without waiting."""

    async def sleep(self, delay_s: float) -> None:
        """Wait, by the client's clock."""

    def input(self, pid: int) -> InputWindow:
        """What this client types into a process: one window for each, whoever holds the process."""

    def tell_uncertain(self, uncertain: InputUncertain) -> None:
        """Report bytes of which nobody knows whether they were typed."""

    def resync(self, process: ClientProcess) -> None:
        """Attach again, from the first byte that is missing; now, or on the next connection."""

    def forget(self, process: ClientProcess) -> None:
        """Hand no more output to this process."""

    @property
    def retention_bytes(self) -> int | None:
        """How much of a process's output the server keeps; None where it does not say."""
