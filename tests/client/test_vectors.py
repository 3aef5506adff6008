"""docs/vectors against the Python client: what it shows, sends, keeps, and when it comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mhnos_runtime.client import Backoff, Runtime
from mhnos_runtime.client.errors import ClientError, ConnectFailed, ProtocolViolation, RequestFailed
from mhnos_runtime.client.input_window import InputWindow
from mhnos_runtime.client.link import LinkClosed, refusal, unpack
from mhnos_runtime.client.pending import PendingRequests
from mhnos_runtime.client.process import ClientProcess
from mhnos_runtime.client.runtime import PROVEN_AFTER_S
from mhnos_runtime.client.types import Gap, InputUncertain, Output
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.client.fake import FakeServer
from tests.vectors import Case, data, document, each

PID = 1000


@each("headers")
def test_headers(case: Case) -> None:
    """A client refuses what is wrong, and what only clients send. Output is for the server to refuse."""
    frame = data(case["header"]) + data(case["payload"])
    if case["name"] == "output from a client" or (case["by"] == "server" and "error" not in case):
        assert unpack(frame).payload == data(case["payload"])
    else:
        with pytest.raises(ProtocolViolation):
            unpack(frame)


class FakeCarrier:
    """The runtime of one process: notes what is sent; its answers come when the test says so."""

    client_name = "a client"
    retention_bytes = None

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.asked: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.uncertain: list[InputUncertain] = []

    async def request(self, message: Any, answer: Any, *, resend: bool = False, on_answer: Any = None) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((on_answer, future))
        return await future

    async def send_now(self, message: Any) -> None:
        if isinstance(message, bytes):
            self.frames.put_nowait(message)

    async def sleep(self, delay_s: float) -> None:
        """No time passes here."""

    def tell_uncertain(self, uncertain: InputUncertain) -> None:
        self.uncertain.append(uncertain)

    def tell(self, message: Any) -> None:
        self.sent.append(message)

    def input(self, pid: int) -> InputWindow:
        return InputWindow(self, pid)

    def resync(self, process: ClientProcess) -> None:
        """The inbox never overflows here."""

    def forget(self, process: ClientProcess) -> None:
        """There is nothing to forget."""


def told(process: ClientProcess, message: Case) -> None:
    """A message or frame of the server's."""
    kind = message["type"]
    if kind in ("stdout", "stderr"):
        number = frames.STDERR if kind == "stderr" else frames.STDOUT
        payload = memoryview(data(message["data"]))
        process.on_output(frames.DataFrame(number, 0, PID, int(message["offset"]), payload))
    elif kind == "gap":
        process.on_gap(m.Gap(PID, message["from"], message["to"]))
    elif kind == "replay":
        process.on_replay(m.Replay(PID, message["from"], message["to"]))
    else:
        assert kind == "attached"
        process.on_attached(m.Attached(PID, "running", from_=message["from"], next=message["next"]))


def shown(item: Output | Gap) -> Case:
    if isinstance(item, Gap):
        return {"type": "gap", "from": item.from_, "to": item.to}
    replay = {"replay": True} if item.replay else {}
    return {"type": item.stream, "offset": item.offset, "data": item.data.hex(), **replay}


def plain(step: Case) -> Case:
    return {**step, "offset": int(step["offset"])} if "offset" in step else step


@each("offsets")
async def test_offsets(case: Case) -> None:
    origin = case["from"] if case["from"] == "start" else int(case["from"])
    process = ClientProcess(FakeCarrier(), PID)
    process.start_from(None if origin == "start" else origin, None, False)
    for step in case["steps"]:
        if "client" in step:
            attach = process.attach_message()
            assert attach.from_ == step["client"].get("from")
        elif "server" in step:
            told(process, step["server"])
    wanted = [plain(step["user"]) for step in case["steps"] if "user" in step]
    output = process.output()
    assert [shown(await anext(output)) for _ in wanted] == wanted
    assert process.consumed == int(case["next"])
    if "error" in case:
        with pytest.raises(ClientError) as caught:
            await anext(output)
        assert caught.value.code == case["error"]
    else:
        following = asyncio.ensure_future(anext(output))
        await asyncio.sleep(0)
        assert not following.done(), "nothing else is shown"
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class Typist:
    """One client's input, whose server is the test."""

    def __init__(self, case: Case) -> None:
        self.carrier = FakeCarrier()
        self.typed = InputWindow(self.carrier, PID)
        self.typed.write_nowait(data(case["types"]))
        self.running = asyncio.ensure_future(self.typed.run())

    async def opened(self, value: Case) -> None:
        on_answer, answered = await asyncio.wait_for(self.carrier.asked.get(), 10)
        answer = m.InputOpened(PID, value["next"])
        if "uncertainFrom" in value:
            answer.uncertain_from = value["uncertainFrom"]
        on_answer(answer)
        answered.set_result(answer)

    async def sends(self, value: Case) -> None:
        frame = frames.unpack(await asyncio.wait_for(self.carrier.frames.get(), 10))
        assert (frame.kind, frame.flags, frame.pid) == (frames.INPUT, frames.NUMBERED, PID)
        assert (frame.offset, bytes(frame.payload).hex()) == (value["offset"], value["data"])

    async def ack(self, value: int) -> None:
        self.typed.on_message(m.InputAck(PID, value))

    async def error(self, value: str) -> None:
        self.typed.on_message(m.ErrorMessage("refused", code=value, pid=PID))

    async def connection(self, value: str) -> None:
        assert value == "lost"
        self.typed.on_lost()


@each("input", "clients")
async def test_input_of_a_client(case: Case) -> None:
    typist = Typist(case)
    for step in case["steps"]:
        [(name, value)] = step.items()
        await getattr(typist, name)(value)
    typed = typist.typed
    assert typed.acknowledged == case["acknowledged"]
    assert typed.end - typed.acknowledged == len(data(case["kept"]))
    uncertain = [(each.from_, each.to, each.data.hex()) for each in typist.carrier.uncertain]
    assert uncertain == [(each["from"], each["to"], each["data"]) for each in case.get("uncertain", [])]
    if "failed" in case:
        with pytest.raises(RequestFailed) as caught:
            typed.write_nowait(b"x")
        assert caught.value.code == case["failed"]
    else:
        typed.fail(ClientError("the end"))
    await typist.running
    assert typist.carrier.frames.empty(), "nothing else is sent"


@each("close")
async def test_close_codes(case: Case) -> None:
    """A server that closes with this code sees the client again, or not."""
    code = case["code"]
    async with FakeServer() as fake, Runtime(fake.url, backoff=Backoff(first_s=0.001)) as runtime:
        if code == LinkClosed(None).code:
            fake.peers[0].cut()
        else:
            await fake.peers[0].socket.close(code=code)
        await fake.until(lambda: fake.upgrades == 2)
        await runtime.ping()
    assert case["reconnect"]
    pending = PendingRequests()
    _, waiting = pending.add(m.Ping(), resend=True)
    pending.connection_lost(code)
    error = waiting.future.exception() if waiting.future.done() else None
    assert getattr(error, "code", None) == case.get("requests")


@each("close", "refusals")
def test_refusals(case: Case) -> None:
    error = refusal("http://x", case["status"])
    assert error.code == case["error"]
    assert (isinstance(error, ConnectFailed) and error.retry) == case["reconnect"]


@each("backoff")
def test_backoff(case: Case) -> None:
    settings, dice = document("backoff"), iter(case["dice"])
    backoff = Backoff(dice=lambda: next(dice))
    assert (backoff.first_s * 1000, backoff.cap_s * 1000) == (settings["firstMs"], settings["capMs"])
    assert settings["provenAfterMs"] == PROVEN_AFTER_S * 1000
    delays = [backoff.next_delay_s() * 1000 for _ in case["delaysMs"]]
    assert delays == pytest.approx(case["delaysMs"])
