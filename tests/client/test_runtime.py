"""The client against a double that cuts, repeats and withholds: every byte once, and every failure told."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from mhnos_runtime.client import (
    ClientProcess,
    ExitInfo,
    Gap,
    InputUncertain,
    Output,
    ProtocolViolation,
    PtySize,
    RequestFailed,
    RequestTimedOut,
)
from mhnos_runtime.wire import frames
from tests.client.fake import FakeProcess, FakeServer, Json, Peer, runtime_for

LOG = bytes(range(256)) * 2
ENDED: Json = {"code": 0, "signal": None, "reason": "exit", "evidence": "", "runtimeMs": 5, "cpuMs": 1}


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
        assert await anext(tail.output()) == Output("stdout", 9, b"9ab", replay=True)


async def test_a_replay_is_told_apart_and_a_reconnection_is_none() -> None:
    """A terminal that answered replayed questions typed its answers into the shell again."""
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.processes[1000] = FakeProcess(b"old")
        process = await runtime.attach(1000, repaint=True)
        output = process.output()
        assert await anext(output) == Output("stdout", 0, b"old", replay=True)
        fake.peers[0].cut()
        fake.processes[1000].log += b"new"
        assert await anext(output) == Output("stdout", 3, b"new")
        assert [r.get("repaint", False) for r in fake.requests if r["type"] == "attach"] == [True, False]


async def test_a_screen_is_drawn_anew_on_a_new_connection_and_not_after_an_overflow() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.processes[1000] = FakeProcess(b"screen", pty={"cols": 80, "rows": 24})
        process = await runtime.attach(1000)
        process.repaint_on_resume = True
        runtime.resync(process)
        await fake.until(lambda: len(attaches(fake)) == 2)
        fake.peers[0].cut()
        await fake.until(lambda: len(attaches(fake)) == 3)
        assert [attach.get("repaint", False) for attach in attaches(fake)] == [False, False, True]


def attaches(fake: FakeServer) -> list[Json]:
    return [request for request in fake.requests if request["type"] == "attach"]


async def test_an_end_during_the_replay_cuts_nothing_off() -> None:
    """What was written between the attach and the end was lost: `attached` told of the exit already."""
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        running = fake.processes[1000] = FakeProcess(b"old")

        async def attach(peer: Peer, request: Json) -> bool:
            await peer.send_output(1000, 0, b"old", flags=frames.REPLAY)
            running.log, running.exit = b"oldnew", ENDED
            info = running.info(1000)
            message = {"pid": 1000, "status": "exited", "process": info, "from": 0, "next": 3}
            await peer.send(type="attached", id=request["id"], **message)
            peer.attached.add(1000)
            await peer.send_output(1000, 3, b"new")
            await fake.end(1000)
            return True

        fake.handlers["attach"] = attach
        process = await runtime.attach(1000)
        assert await collect(process) == b"oldnew"
        assert (await process.wait()).code == 0


async def test_an_unknown_process_is_an_error_with_code() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        with pytest.raises(RequestFailed, match="Process 7 not found") as caught:
            await runtime.attach(7)
        assert caught.value.code == "unknown-process"
        assert not caught.value.retry


async def test_a_request_without_an_answer_times_out() -> None:
    async def silent(peer: Peer, request: Json) -> bool:
        return True

    async with FakeServer() as fake, runtime_for(fake, request_timeout_s=0.05) as runtime:
        fake.handlers["list"] = silent
        with pytest.raises(RequestTimedOut, match="no answer to list"):
            await runtime.list()
        await runtime.ping()


async def test_a_spawn_is_sent_again_with_its_key_and_starts_one_process() -> None:
    async def start_and_cut(peer: Peer, request: Json) -> bool:
        del fake.handlers["spawn"]
        fake.keys[request["key"]] = 1000
        fake.processes[1000] = FakeProcess(b"early")
        peer.cut()
        return True

    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.handlers["spawn"] = start_and_cut
        first = await runtime.spawn("python", "app.py")
        second = await runtime.spawn("python", "app.py")
        assert (first.pid, second.pid, len(fake.processes)) == (1000, 1001, 2)
        keys = [request["key"] for request in fake.requests]
        assert keys[0] == keys[1] != keys[2]


async def test_a_full_input_is_waited_for_and_nothing_is_typed_twice() -> None:
    room = 3

    async def refuse(peer: Peer, pid: int, data: bytes) -> bool:
        nonlocal room
        room -= 1
        if -4 < room < 0:
            await peer.send(type="error", pid=pid, error="full", code="input-full", retry=True)
        return -4 < room < 0

    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.on_input = refuse
        process = await runtime.spawn("python", "app.py")
        data = bytes(range(256)) * 8192
        await process.write(data)
        assert fake.processes[process.pid].written == data


async def test_input_to_a_closed_process_is_an_error() -> None:
    async def refuse(peer: Peer, pid: int, data: bytes) -> bool:
        await peer.send(type="error", pid=pid, error="closed", code="input-closed", retry=False)
        return True

    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.on_input = refuse
        process = await runtime.spawn("python", "app.py")
        with pytest.raises(RequestFailed) as caught:
            await process.write("x")
        assert caught.value.code == "input-closed"
        with pytest.raises(RequestFailed):
            process.write_nowait("y")


async def test_what_waits_to_be_typed_fails_with_the_end_of_the_process() -> None:
    async def swallow(peer: Peer, pid: int, data: bytes) -> bool:
        return True

    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.on_input = swallow
        process = await runtime.spawn("python", "app.py")
        writing = asyncio.create_task(process.write("x"))
        await fake.until(lambda: any(request["type"] == "openInput" for request in fake.requests))
        await fake.end(process.pid)
        with pytest.raises(RequestFailed) as caught:
            await writing
        assert caught.value.code == "input-closed"


async def test_input_is_typed_once_over_cuts_before_and_after_each_acknowledgement() -> None:
    typed = b"".join(b"%d." % number for number in range(300))
    for cut_after in range(1, 12):
        async with FakeServer() as fake, runtime_for(fake) as runtime:
            process = await runtime.spawn("shell")
            fake.cut_after, fake.next_cut_after = cut_after, 4
            for start in range(0, len(typed), 100):
                await process.write(typed[start : start + 100])
            assert fake.processes[process.pid].written == typed, cut_after
            assert process.uncertain_input == []
            assert len({r["client"] for r in fake.requests if r["type"] == "openInput"}) == 1


async def test_what_was_being_typed_when_a_server_was_killed_is_told_and_not_typed_again() -> None:
    told: list[InputUncertain] = []

    async def die(peer: Peer, pid: int, data: bytes) -> bool:
        """Three of eight bytes were known to be typed, and five more were on their way."""
        process = fake.processes[pid]
        fake.on_input, process.uncertain_from = None, 3
        process.typed[peer.names[pid]] = 8
        peer.cut()
        return True

    async with FakeServer() as fake, runtime_for(fake, on_uncertain=told.append) as runtime:
        process = await runtime.spawn("shell")
        fake.on_input = die
        await process.write("0123456789")
        assert fake.processes[process.pid].written == b"89"
        assert told == [InputUncertain(process.pid, 3, 8, b"34567")] == process.uncertain_input


async def test_a_server_that_has_forgotten_what_was_typed_is_not_typed_to_again() -> None:
    """More clients than it has room for came while this one was away; nobody knows what of the rest came."""
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("shell")
        await process.write("abc")
        fake.processes[process.pid].typed.clear()
        fake.peers[0].cut()
        with pytest.raises(RequestFailed) as caught:
            await process.write("def")
        assert caught.value.code == "input-lost"
        assert fake.processes[process.pid].written == b"abc"


async def test_what_waits_to_be_typed_is_bounded() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("shell")
        fake.refuse_status = 503
        fake.peers[0].cut()
        process.write_nowait(b"x" * 1_000_000)
        with pytest.raises(RequestFailed) as caught:
            process.write_nowait(b"x" * 100_000)
        assert caught.value.code == "input-full"
        fake.refuse_status = None
        await process.write(b"y" * 500_000)
        assert fake.processes[process.pid].written == b"x" * 1_000_000 + b"y" * 500_000


async def test_what_was_typed_last_arrives_before_the_client_closes() -> None:
    async with FakeServer() as fake:
        async with runtime_for(fake) as runtime:
            process = await runtime.spawn("shell")
            process.write_nowait("exit\r")
        assert fake.processes[process.pid].written == b"exit\r"


async def test_keys_wait_for_the_connection_to_return_and_the_size_is_told_again() -> None:
    lost = asyncio.Event()
    async with FakeServer() as fake, runtime_for(fake, on_state=lambda _: lost.set()) as runtime:
        process = await runtime.spawn("shell", pty=PtySize(90, 20))
        await process.resize(100, 30)
        await fake.until(lambda: len(fake.processes[process.pid].sizes) == 2)
        fake.peers[0].cut()
        await lost.wait()
        process.write_nowait("ls\r")
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
        assert fake.upgrades == 1, "the connection was given up for them"


async def test_a_push_carries_any_bytes() -> None:
    async def fsync(peer: Peer, request: Json) -> bool:
        fake_files.extend(request["files"])
        results = {"synced": len(request["files"]), "failed": 0, "errors": []}
        await peer.send(
            type="fsyncResult", id=request["id"], operation="push", status="success", results=results
        )
        return True

    fake_files: list[Json] = []
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        fake.handlers["fsync"] = fsync
        files = {"a.txt": "grün".encode(), "b.bin": b"\xff\x00", "c": b"", "d": None}
        assert (await runtime.push(files)).synced == 4
    assert {each["path"]: pushed(each) for each in fake_files} == files


def pushed(entry: Json) -> bytes | None:
    """A text as it is, other bytes as numbers."""
    content = entry.get("content", "")
    if entry.get("kind") == "directory":
        return None
    return content.encode() if isinstance(content, str) else bytes(content)
