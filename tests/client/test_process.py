"""One process without a connection: what its consumer gets, what the server is told of that, how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import UNSET

from mhnos_runtime.client.errors import ClientError, ProcessLost, ProtocolViolation
from mhnos_runtime.client.inbox import HIGH_WATER_BYTES
from mhnos_runtime.client.process import ACK_BYTES, ClientProcess, exit_of_event, lost
from mhnos_runtime.client.types import ExitInfo, Gap, Output
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.client.carrier import FakeCarrier

PID = 1000


@pytest.fixture
def carrier() -> FakeCarrier:
    return FakeCarrier()


@pytest.fixture
async def process(carrier: FakeCarrier) -> ClientProcess:
    made = ClientProcess(carrier, PID, expected=0)
    made.mark_ready()
    return made


def feed(process: ClientProcess, offset: int, data: bytes, kind: int = frames.STDOUT) -> None:
    process.on_output(frames.DataFrame(kind, 0, PID, offset, memoryview(data)))


def acks(carrier: FakeCarrier) -> list[int]:
    return [message.offset for message in carrier.sent if isinstance(message, m.Ack)]


async def drained(process: ClientProcess) -> list[Output | Gap]:
    return [item async for item in process.output()]


# Output


async def test_output_ends_with_the_exit_and_both_streams_are_told_apart(process: ClientProcess) -> None:
    feed(process, 0, b"out")
    feed(process, 3, b"err", frames.STDERR)
    process.on_gap(m.Gap(PID, 6, 9))
    process.on_exit(m.Exit(PID, 0, None, 5))
    found = await asyncio.wait_for(drained(process), 10)
    assert found == [Output("stdout", 0, b"out"), Output("stderr", 3, b"err"), Gap(6, 9)]
    assert process.consumed == 9
    assert process.over


async def test_a_consumer_is_woken_by_what_comes(process: ClientProcess) -> None:
    output = process.output()
    first = asyncio.ensure_future(anext(output))
    await asyncio.sleep(0)
    assert not first.done()
    feed(process, 0, b"x")
    assert await asyncio.wait_for(first, 10) == Output("stdout", 0, b"x")


async def test_a_hole_ends_the_output_after_what_came_before_it(process: ClientProcess) -> None:
    feed(process, 0, b"x")
    feed(process, 2, b"z")
    output = process.output()
    assert await anext(output) == Output("stdout", 0, b"x")
    with pytest.raises(ProtocolViolation):
        await anext(output)
    with pytest.raises(ProtocolViolation):
        await process.wait()


async def test_what_is_dropped_for_a_slow_consumer_is_asked_for_again(
    process: ClientProcess, carrier: FakeCarrier
) -> None:
    chunk = bytes(1 << 16)
    for offset in range(0, HIGH_WATER_BYTES + len(chunk), len(chunk)):
        feed(process, offset, chunk)
    process.on_exit(m.Exit(PID, 0, None, 5))
    assert not process.over, "what was dropped is still to come"
    output, taken = process.output(), 0
    while not carrier.resynced:
        item = await asyncio.wait_for(anext(output), 10)
        assert isinstance(item, Output)
        taken += len(item.data)
    attach = process.attach_message()
    assert attach.from_ == HIGH_WATER_BYTES
    feed(process, HIGH_WATER_BYTES, chunk)
    process.on_attached(m.Attached(PID, "exited", from_=HIGH_WATER_BYTES, next=HIGH_WATER_BYTES + len(chunk)))
    rest = await asyncio.wait_for(drained(process), 10)
    taken += sum(len(item.data) for item in rest if isinstance(item, Output))
    assert taken == HIGH_WATER_BYTES + len(chunk)


# Acknowledgements


async def test_a_consumer_acknowledges_what_it_used_in_steps(
    process: ClientProcess, carrier: FakeCarrier
) -> None:
    output = process.output()
    step = ACK_BYTES // 2
    for offset in range(0, 4 * step, step):
        feed(process, offset, bytes(step))
        await anext(output)
    later = asyncio.ensure_future(anext(output))
    await asyncio.sleep(0)
    assert acks(carrier) == [ACK_BYTES, 2 * ACK_BYTES]
    later.cancel()
    await asyncio.gather(later, return_exceptions=True)


async def test_without_a_consumer_what_arrives_is_acknowledged(
    process: ClientProcess, carrier: FakeCarrier
) -> None:
    feed(process, 0, bytes(ACK_BYTES - 1))
    assert acks(carrier) == []
    feed(process, ACK_BYTES - 1, b"x")
    assert acks(carrier) == [ACK_BYTES]


@pytest.mark.parametrize("retention", [1, 400, 4 * ACK_BYTES, None])
async def test_acknowledgements_come_at_least_at_each_quarter_of_what_is_kept(
    process: ClientProcess, carrier: FakeCarrier, retention: int | None
) -> None:
    carrier.retention_bytes = retention
    due = ACK_BYTES if retention is None else max(1, retention // 4)
    feed(process, 0, bytes(due))
    assert acks(carrier) == [due]


# Attaching


async def test_the_first_attach_starts_where_it_was_asked_to_and_later_ones_where_it_was(
    carrier: FakeCarrier,
) -> None:
    process = ClientProcess(carrier, PID)
    process.start_from("end", None, True)
    first = process.attach_message()
    assert (first.from_, first.repaint, first.acks) == ("end", True, True)
    process.on_attached(m.Attached(PID, "running", from_=7, next=7))
    await asyncio.wait_for(process.until_ready(), 10)
    feed(process, 7, b"x")
    again = process.attach_message(resumed=True)
    assert (again.from_, again.repaint, process.attached_at) == (8, False, 7)


async def test_a_screen_is_drawn_anew_where_that_was_asked_for(process: ClientProcess) -> None:
    process.repaint_on_resume = True
    assert process.attach_message(resumed=True).repaint
    assert not process.attach_message().repaint


async def test_only_what_was_there_before_the_first_attach_is_a_replay(carrier: FakeCarrier) -> None:
    process = ClientProcess(carrier, PID)
    process.start_from("start", None, False)
    process.on_replay(m.Replay(PID, 0, 1))
    feed(process, 0, b"a")
    process.on_attached(m.Attached(PID, "running", from_=0, next=1))
    process.on_replay(m.Replay(PID, 1, 2))
    feed(process, 1, b"b")
    process.on_exit(m.Exit(PID, 0, None, 5))
    assert [item.replay for item in await drained(process)] == [True, False]  # type: ignore[union-attr]


async def test_an_attach_that_fails_is_told_to_who_waits_for_it(carrier: FakeCarrier) -> None:
    process = ClientProcess(carrier, PID)
    waiting = asyncio.ensure_future(process.until_ready())
    process.fail(lost(PID, "gone"))
    with pytest.raises(ProcessLost, match="process 1000 is lost: gone"):
        await asyncio.wait_for(waiting, 10)


# Requests


@pytest.mark.parametrize(
    ("call", "answer", "request_"),
    [
        (lambda p: p.kill("SIGINT"), m.Killed(PID), m.Kill(pid=PID, signal="SIGINT")),
        (lambda p: p.kill(escalate=False), m.Killed(PID), m.Kill(pid=PID, escalate=False)),
        (lambda p: p.close_stdin(), m.StdinClosed(PID), m.CloseStdin(pid=PID)),
        (lambda p: p.detach(), m.Detached(PID), m.Detach(pid=PID)),
        (lambda p: p.token(), m.CredentialsAnswer(PID, "t"), m.Credentials(pid=PID)),
    ],
)
async def test_each_request_is_sent_and_answered(
    process: ClientProcess, carrier: FakeCarrier, call: Any, answer: m.Message, request_: m.Message
) -> None:
    asking = asyncio.ensure_future(call(process))
    assert await carrier.answer(answer) == request_
    assert await asyncio.wait_for(asking, 10) == getattr(answer, "token", None)


async def test_a_process_that_is_left_is_forgotten(process: ClientProcess, carrier: FakeCarrier) -> None:
    leaving = asyncio.ensure_future(process.detach())
    await carrier.answer(m.Detached(PID))
    await asyncio.wait_for(leaving, 10)
    assert carrier.forgotten == 1


async def test_a_process_that_is_left_lets_everyone_go_who_waits_for_it(
    process: ClientProcess, carrier: FakeCarrier
) -> None:
    """They waited for ever: nothing of the process came any more, and nobody said so."""
    feed(process, 0, b"x")
    waiting = [asyncio.ensure_future(each) for each in (process.wait(), process.until_serving())]
    output = asyncio.ensure_future(drained(process))
    leaving = asyncio.ensure_future(process.detach())
    await carrier.answer(m.Detached(PID))
    await asyncio.wait_for(leaving, 10)
    assert await asyncio.wait_for(output, 10) == [Output("stdout", 0, b"x")]
    for each in waiting:
        with pytest.raises(ClientError, match="detached from process 1000") as caught:
            await asyncio.wait_for(each, 10)
        assert caught.value.code == "detached"


async def test_the_input_is_closed_behind_what_was_typed(
    process: ClientProcess, carrier: FakeCarrier
) -> None:
    process.write_nowait("é")
    closing = asyncio.ensure_future(process.close_stdin())
    await asyncio.sleep(0)
    assert carrier.asked.empty(), "two bytes are not typed yet"
    carrier.input(PID).on_message(m.InputAck(PID, 2))
    await carrier.answer(m.StdinClosed(PID))
    await asyncio.wait_for(closing, 10)
    assert process.uncertain_input == []


async def test_a_size_is_told_now_and_on_each_new_connection(
    process: ClientProcess, carrier: FakeCarrier
) -> None:
    assert process.resume_messages() == []
    await process.resize(120, 40)
    assert carrier.sent == process.resume_messages() == [m.Resize(pid=PID, cols=120, rows=40)]


# News, and the end


async def test_whether_it_serves_is_waited_for_and_each_change_is_told(process: ClientProcess) -> None:
    told: list[str] = []
    process.on_news_told = lambda: told.append(process.readiness.state if process.readiness else "ports")
    serving = asyncio.ensure_future(process.until_serving())
    port = m.Port("http", 8080, "127.0.0.1")
    process.on_news(m.Ports(PID, [port]))
    for state in ("starting", "starting", "ready"):
        process.on_news(m.Ready(PID, state))
    assert await asyncio.wait_for(serving, 10) == m.Readiness("ready")
    assert (told, process.ports) == (["ports", "starting", "ready"], [port])


async def test_one_that_nobody_looks_at_serves_until_it_ends(process: ClientProcess) -> None:
    serving = asyncio.ensure_future(process.until_serving())
    process.on_exit(m.Exit(PID, 0, None, 5))
    assert await asyncio.wait_for(serving, 10) is None


async def test_a_record_of_the_exit_is_not_the_end(process: ClientProcess) -> None:
    record = m.ExitInfo(0, None, "exit", "waitpid", 5, None, None, 0, 6)
    info = m.ProcessInfo(PID, "shell", "", [], 5, "exited", exit=record)
    process.on_attached(m.Attached(PID, "exited", from_=0, next=0, process=info))
    assert (process.info, process.exit, process.over) == (info, None, False)


async def test_the_first_end_counts(process: ClientProcess) -> None:
    process.on_exit(m.Exit(PID, 3, None, 5))
    process.on_exit(m.Exit(PID, 4, None, 5))
    assert (await process.wait()).code == 3
    failed = ClientProcess(FakeCarrier(), PID)
    for text in ("first", "second"):
        failed.fail(ClientError(text))
    with pytest.raises(ClientError, match="first"):
        await failed.wait()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (m.Exit(PID, 0, None, 7), ExitInfo(0, None, "exit", "", 7)),
        (m.Exit(PID, None, "SIGKILL", None), ExitInfo(None, "SIGKILL", "signal")),
        (
            m.Exit(PID, 1, None, 7, "memory", 8, None, 9, "watchdog", "config"),
            ExitInfo(1, None, "memory", "watchdog", 7, 8, None, 9, "config"),
        ),
    ],
)
def test_what_a_server_of_1_0_leaves_out_is_not_known(event: m.Exit, expected: ExitInfo) -> None:
    assert exit_of_event(event) == expected
    assert event.failure is UNSET or event.failure == expected.failure
