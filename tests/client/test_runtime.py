"""The client against a double that cuts, repeats and withholds: every byte once, and every failure told."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from mhnos_runtime.client import (
    Backoff,
    ClientProcess,
    ConnectFailed,
    ConnectionLost,
    ExitInfo,
    Gap,
    Output,
    ProcessLost,
    ProtocolViolation,
    PtySize,
    RequestFailed,
    RequestTimedOut,
    Runtime,
    Unauthorized,
    connect,
)
from tests.client.fake import FakeProcess, FakeServer, Json, Peer

LOG = bytes(range(256)) * 2
ENDED: Json = {"code": 0, "signal": None, "reason": "exit", "evidence": "", "runtimeMs": 5, "cpuMs": 1}


def runtime_for(fake: FakeServer, **options: Any) -> Runtime:
    quick = Backoff(first_s=0.001, cap_s=0.01)
    return connect(fake.url, **{"backoff": quick, "request_timeout_s": 10, **options})


async def collect(process: ClientProcess) -> bytes:
    data = b""
    async for item in process.output():
        assert isinstance(item, Output)
        assert item.offset == len(data)
        data += item.data
    return data


async def test_output_comes_exactly_and_ends_with_the_process() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.processes[1000] = FakeProcess(LOG, exit={**ENDED, "code": 3})
        process = await runtime.attach(1000, from_=0)
        assert await collect(process) == LOG
        assert (await process.wait()).code == 3


@pytest.mark.parametrize("overlap_bytes", [0, 5])
async def test_a_cut_at_every_message_loses_and_doubles_nothing(overlap_bytes: int) -> None:
    messages = 2 + len(LOG) // 64 + 2
    for cut_after in range(1, messages + 1):
        async with FakeServer() as fake:
            fake.chunk_bytes, fake.overlap_bytes = 64, overlap_bytes
            fake.processes[1000] = FakeProcess(LOG)
            async with runtime_for(fake) as runtime:
                fake.cut_after = cut_after - 1
                process = await runtime.attach(1000, from_=0)
                reader = asyncio.create_task(collect(process))
                await fake.feed(1000, b"more") if fake.peers else None
                await fake.until(lambda: any(1000 in peer.attached for peer in fake.peers))
                await fake.end(1000)
                want = fake.processes[1000].log
                got = await asyncio.wait_for(reader, 10)
                assert hashlib.sha256(got).digest() == hashlib.sha256(want).digest(), cut_after


async def test_cuts_again_and_again_still_come_to_the_end() -> None:
    async with FakeServer() as fake:
        fake.processes[1000] = FakeProcess(LOG, exit={**ENDED})
        async with runtime_for(fake) as runtime:
            fake.cut_after = fake.next_cut_after = 4
            process = await runtime.attach(1000, from_=0)
            assert await collect(process) == LOG
        assert fake.upgrades > 10


async def test_a_gap_is_shown_with_its_range() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.processes[1000] = FakeProcess(LOG, first_offset=500, exit=ENDED)
        process = await runtime.attach(1000, from_=10)
        items = [item async for item in process.output()]
        assert items[0] == Gap(10, 500)
        assert b"".join(item.data for item in items if isinstance(item, Output)) == LOG[500:]


async def test_a_hole_without_a_gap_is_a_protocol_violation_of_that_process_only() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("python", "app.py")
        other = await runtime.spawn("python", "app.py")
        peer = fake.peers[0]
        await peer.send_output(process.pid, 0, b"ab")
        await peer.send_output(process.pid, 3, b"d")
        await fake.feed(other.pid, b"fine")
        await fake.end(other.pid)
        output = process.output()
        assert await anext(output) == Output("stdout", 0, b"ab")
        with pytest.raises(ProtocolViolation):
            await anext(output)
        assert await collect(other) == b"fine"


async def test_duplicates_are_trimmed() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("python", "app.py")
        for offset, data in ((0, b"abc"), (0, b"abc"), (1, b"bcd"), (4, b"e")):
            await fake.peers[0].send_output(process.pid, offset, data)
        await fake.end(process.pid)
        assert await collect(process) == b"abcde"


async def test_streams_and_exit_record_are_told_apart() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("node", "app.js", args=["a"], cwd="/x", env={"A": "b"}, timeout_ms=5)
        await fake.peers[0].send_output(process.pid, 0, b"err", stderr=True)
        await fake.end(process.pid, code=None, signal="SIGKILL", reason="memory", evidence="oom_kill 1")
        items = [item async for item in process.output()]
        assert items == [Output("stderr", 0, b"err")]
        ended = await process.wait()
        assert ended == ExitInfo(None, "SIGKILL", "memory", "oom_kill 1", 5, 1, None, 0)
        sent = fake.requests[0]
        assert (sent["processType"], sent["command"], sent["args"]) == ("node", "app.js", ["a"])
        assert sent["options"] == {"cwd": "/x", "env": {"A": "b"}, "timeout": 5}


async def test_attach_at_the_end_and_with_a_tail() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.processes[1000] = FakeProcess(b"0123456789")
        end = await runtime.attach(1000, from_="end")
        with pytest.raises(ValueError, match="attached"):
            await runtime.attach(1000)
        await fake.feed(1000, b"ab")
        assert await anext(end.output()) == Output("stdout", 10, b"ab")
        await end.detach()
        tail = await runtime.attach(1000, tail=3)
        assert await anext(tail.output()) == Output("stdout", 9, b"9ab")


async def test_an_unknown_process_is_an_error_with_code() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        with pytest.raises(RequestFailed, match="Process 7 not found") as caught:
            await runtime.attach(7)
        assert caught.value.code == "unknown-process"
        assert not caught.value.retry


async def test_a_server_that_lost_its_state_ends_the_output_with_process_lost() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("python", "app.py")
        await fake.feed(process.pid, b"a")
        output = process.output()
        assert await anext(output) == Output("stdout", 0, b"a")
        fake.server_id = "second"
        fake.peers[0].cut()
        with pytest.raises(ProcessLost):
            await asyncio.wait_for(anext(output), 10)
        with pytest.raises(ProcessLost):
            await process.wait()


async def test_a_process_that_expired_meanwhile_is_lost() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("python", "app.py")
        fake.processes.clear()
        fake.peers[0].cut()
        with pytest.raises(ProcessLost):
            await asyncio.wait_for(process.wait(), 10)


async def test_a_wrong_token_is_final() -> None:
    async with FakeServer() as fake:
        fake.token = "right"
        with pytest.raises(Unauthorized):
            async with runtime_for(fake, token="wrong"):
                pass
        async with runtime_for(fake, token="right") as runtime:
            process = await runtime.spawn("python", "app.py")
            fake.token = "rotated"
            fake.peers[0].cut()
            with pytest.raises(Unauthorized):
                await asyncio.wait_for(process.wait(), 10)
            with pytest.raises(Unauthorized):
                await runtime.ping()
        assert fake.upgrades == 3


async def test_refusals_that_pass_are_retried() -> None:
    async with FakeServer() as fake:
        states: list[str] = []
        async with runtime_for(fake, on_state=states.append) as runtime:
            fake.refuse_status = 503
            fake.peers[0].cut()
            await fake.until(lambda: fake.upgrades >= 4)
            fake.refuse_status = None
            await runtime.ping()
            assert states == ["lost", "resumed"]


async def test_nobody_listening_is_told_with_a_hint() -> None:
    async with FakeServer() as fake:
        url = fake.url
    with pytest.raises(ConnectFailed, match="cannot connect") as caught:
        async with connect(url):
            pass
    assert "mhnos-runtime serve" in caught.value.hint


async def test_a_server_of_protocol_1_0_is_refused_in_words() -> None:
    async with FakeServer() as fake:
        fake.subprotocol = False
        with pytest.raises(ConnectFailed, match=r"speaks only protocol 1\.0\.0"):
            async with runtime_for(fake):
                pass


async def test_without_reconnect_the_loss_ends_everything() -> None:
    async with FakeServer() as fake, runtime_for(fake, reconnect=False) as runtime:
        process = await runtime.spawn("python", "app.py")
        fake.peers[0].cut()
        with pytest.raises(ConnectionLost):
            await process.wait()
        with pytest.raises(ConnectionLost):
            await runtime.ping()


async def test_a_request_without_an_answer_times_out() -> None:
    async def silent(peer: Peer, request: Json) -> bool:
        return True

    async with FakeServer() as fake, runtime_for(fake, request_timeout_s=0.05) as runtime:
        fake.handlers["list"] = silent
        with pytest.raises(RequestTimedOut, match="no answer to list"):
            await runtime.list()
        await runtime.ping()


async def test_a_harmless_request_is_sent_again_and_a_spawn_is_not() -> None:
    async def cut_once(peer: Peer, request: Json) -> bool:
        del fake.handlers[request["type"]]
        peer.cut()
        return True

    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.handlers["list"] = cut_once
        assert await runtime.list() == []
        fake.handlers["spawn"] = cut_once
        with pytest.raises(ConnectionLost):
            await runtime.spawn("python", "app.py")
        assert [request["type"] for request in fake.requests] == ["list", "list", "spawn"]


async def test_a_full_input_is_waited_for_and_nothing_is_typed_twice() -> None:
    room = 3
    taken = b""

    async def take(peer: Peer, pid: int, data: bytes) -> None:
        nonlocal room, taken
        room -= 1
        if room < 0 and room > -4:
            await peer.send(type="error", pid=pid, error="full", code="input-full", retry=True)
        else:
            taken += data

    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.on_input = take
        process = await runtime.spawn("python", "app.py")
        data = bytes(range(256)) * 2048
        await process.write(data)
        assert taken == data


async def test_input_to_a_closed_process_is_an_error() -> None:
    async def refuse(peer: Peer, pid: int, data: bytes) -> None:
        await peer.send(type="error", pid=pid, error="closed", code="input-closed", retry=False)

    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.on_input = refuse
        process = await runtime.spawn("python", "app.py")
        with pytest.raises(RequestFailed) as caught:
            await process.write("x")
        assert caught.value.code == "input-closed"


async def test_keys_wait_for_the_connection_to_return_and_the_size_is_told_again() -> None:
    lost = asyncio.Event()
    async with FakeServer() as fake, runtime_for(fake, on_state=lambda _: lost.set()) as runtime:
        process = await runtime.spawn("shell", pty=PtySize(90, 20))
        await process.resize(100, 30)
        await fake.until(lambda: len(fake.processes[process.pid].sizes) == 2)
        fake.peers[0].cut()
        await lost.wait()
        await process.write_nowait("ls\r")
        await process.write("more")
        assert fake.processes[process.pid].written == b"ls\rmore"
        await fake.until(lambda: fake.processes[process.pid].sizes == [(90, 20), (100, 30), (100, 30)])


async def test_a_consumer_acknowledges_what_it_took_and_no_more() -> None:
    async with FakeServer() as fake:
        fake.retention_bytes = 4096  # an acknowledgement each 1024 bytes: it must not wait for a full log
        async with runtime_for(fake) as runtime:
            process = await runtime.spawn("python", "app.py")
            output = process.output()
            for _ in range(3):
                await fake.feed(process.pid, b"x" * 600)
                await anext(output)
            await fake.end(process.pid)
            assert [item async for item in output] == []
            await runtime.ping()
            assert [r["offset"] for r in fake.requests if r["type"] == "ack"] == [1200]


async def test_an_idle_consumer_costs_bounded_memory_and_gets_everything_later() -> None:
    """Slow, not gone: the queue must be bounded, and other processes must not wait for it."""
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.chunk_bytes = 65536
        slow = await runtime.spawn("python", "app.py")
        for index in range(130):
            await fake.feed(slow.pid, bytes([index]) * 65536)
        other = await runtime.spawn("python", "app.py")
        await fake.feed(other.pid, b"prompt")
        await fake.end(other.pid)
        assert await collect(other) == b"prompt"
        await fake.end(slow.pid)
        await asyncio.wait_for(slow.wait(), 10)
        digest, size = hashlib.sha256(), 0
        async for item in slow.output():
            assert isinstance(item, Output)
            digest.update(item.data)
            size += len(item.data)
        assert size == 130 * 65536
        assert digest.digest() == hashlib.sha256(fake.processes[slow.pid].log).digest()


async def test_messages_of_a_newer_server_are_ignored() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        await fake.peers[0].send(type="weather", sky="blue")
        await fake.peers[0].socket.send_str("{not json")
        await runtime.ping()


async def test_push_and_pull_carry_any_bytes() -> None:
    async def fsync(peer: Peer, request: Json) -> bool:
        if request["operation"] == "push":
            fake_files.extend(request["files"])
            results = {"synced": len(request["files"]), "failed": 0, "errors": []}
            await peer.send(
                type="fsyncResult", id=request["id"], operation="push", status="success", results=results
            )
        else:
            await peer.send(
                type="fsyncResult", id=request["id"], operation="pull", status="success", files=fake_files
            )
        return True

    fake_files: list[Json] = []
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.handlers["fsync"] = fsync
        files = {"a.txt": "grün".encode(), "b.bin": b"\xff\x00", "c": b"", "d": None}
        assert (await runtime.push(files)).synced == 4
        assert await runtime.pull() == files
