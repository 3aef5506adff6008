"""docs/vectors against the Python client: what it shows, sends, keeps, and when it comes back."""

from __future__ import annotations

import asyncio

import pytest

from mhnos_runtime.client import Backoff, Runtime
from mhnos_runtime.client.errors import (
    ClientError,
    ConnectFailed,
    ProtocolViolation,
    RequestFailed,
    Unauthorized,
)
from mhnos_runtime.client.input_window import InputWindow
from mhnos_runtime.client.link import LinkClosed
from mhnos_runtime.client.opening import refusal
from mhnos_runtime.client.process import ClientProcess
from mhnos_runtime.client.received import unpack
from mhnos_runtime.client.runtime import PROVEN_AFTER_S
from mhnos_runtime.client.types import Gap, Output
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.client.carrier import FakeCarrier
from tests.client.fake import FakeServer, Peer
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
        answer = m.InputOpened(PID, value["next"])
        if "uncertainFrom" in value:
            answer.uncertain_from = value["uncertainFrom"]
        await self.carrier.answer(answer)

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
    """A server that closes with this code sees the client again or not; what waits is sent again or fails."""
    code = case["code"]
    asked = asyncio.Event()

    async def withhold(_peer: Peer, _request: Case) -> bool:
        asked.set()
        return True

    async with FakeServer() as fake, Runtime(fake.url, backoff=Backoff(first_s=0.001)) as runtime:
        fake.handlers["ping"] = withhold
        waiting = asyncio.ensure_future(runtime.ping())
        await asked.wait()
        del fake.handlers["ping"]
        if code == LinkClosed(None).code:
            fake.peers[0].cut()
        else:
            await fake.peers[0].socket.close(code=code)
        [answer] = await asyncio.gather(waiting, return_exceptions=True)
        assert getattr(answer, "code", None) == case.get("requests")
        if case["reconnect"]:
            await runtime.ping()
        else:
            with pytest.raises(ClientError):
                await runtime.ping()
        assert fake.upgrades == (2 if case["reconnect"] else 1)


@each("close", "refusals")
def test_refusals(case: Case) -> None:
    error = refusal("http://x", case["status"], case.get("retryAfter"))
    assert error.code == case["error"]
    assert (isinstance(error, ConnectFailed) and error.retry) == case["reconnect"]
    wait_s = error.retry_after_s if isinstance(error, ConnectFailed) else None
    assert (None if wait_s is None else wait_s * 1000) == case.get("waitMs")


@each("backoff")
async def test_backoff(case: Case) -> None:
    """Each wait of a real client, whose connections break after as long as the case says."""
    settings, dice = document("backoff"), iter(case["dice"])
    backoff = Backoff(dice=lambda: next(dice))
    assert (backoff.first_s * 1000, backoff.cap_s * 1000) == (settings["firstMs"], settings["capMs"])
    assert settings["provenAfterMs"] == PROVEN_AFTER_S * 1000
    lasted = case.get("lastedMs", [0] + [None] * (len(case["delaysMs"]) - 1))
    delays: list[float] = []
    now_ms = 0.0

    async def sleep(delay_s: float) -> None:
        """The attempt behind this wait succeeds if a connection is to last then. The end: a token refused."""
        delays.append(delay_s * 1000)
        more = len(delays) < len(lasted)
        fake.refuse_status = 401 if not more else 502 if lasted[len(delays)] is None else None

    async with (
        FakeServer() as fake,
        Runtime(fake.url, backoff=backoff, sleep=sleep, clock=lambda: now_ms / 1000) as runtime,
    ):
        for each_ms in lasted:
            if each_ms is not None:
                await runtime.ping()
                now_ms += each_ms
                fake.peers[-1].cut()
                upgrades = fake.upgrades
                await fake.until(lambda upgrades=upgrades: fake.upgrades > upgrades)  # type: ignore[misc]
        with pytest.raises(Unauthorized):
            await runtime.ping()
    assert delays == pytest.approx(case["delaysMs"])
