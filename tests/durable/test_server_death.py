"""The server killed, stopped and hung at random moments: no byte is lost or doubled, and exits are true."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from mhnos_runtime.client import ClientProcess, Runtime
from mhnos_runtime.process.facts import VERSION
from mhnos_runtime.testing import TestServer
from tests.durable.scene import (
    BLOCK_BYTES,
    MIB,
    NO_PAUSES,
    Assembler,
    client_of,
    eventually,
    expected_sha,
    kill_server,
    patch,
    server_in,
    spawn_writer,
    timed,
    written_sha,
)


@pytest.mark.timeout(600)
async def test_kills_at_random_moments_of_a_stream(tmp_path: Path, dice: random.Random, long: bool) -> None:
    kills, total = (200, 256 * MIB) if long else (6, 16 * MIB)
    moments = sorted(dice.randrange(total) for _ in range(kills))
    async with server_in(tmp_path, patched=NO_PAUSES) as server, client_of(server) as runtime:
        process = await spawn_writer(runtime, server, "kills", total // BLOCK_BYTES)
        assembler = Assembler(process)
        assembling = asyncio.create_task(assembler.run())
        await process.write("x")
        async with timed(f"{kills} kills in {total // MIB} MiB"):
            for moment in moments:
                await assembler.reached(moment)
                await kill_server(server)
            sha = await assembling
        assert assembler.offset == total
        assert sha == written_sha(server, "kills") == expected_sha("kills", total // BLOCK_BYTES)
        assert (await process.wait()).code == 0


@pytest.mark.timeout(120)
async def test_a_server_that_is_stopped_for_a_while(tmp_path: Path, long: bool) -> None:
    """2 s are a pause. After 5 s the watchdog takes it for hung: when that took as long as holds are kept,
    the clients came back too late."""
    stopped_s, blocks = (12.0, 512) if long else (2.0, 256)
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        process = await spawn_writer(runtime, server, "stop", blocks)
        assembler = Assembler(process)
        assembling = asyncio.create_task(assembler.run())
        await process.write("x")
        await assembler.reached(MIB)
        before = server.server_pid()
        os.kill(before, signal.SIGSTOP)
        await asyncio.sleep(stopped_s)
        try:
            os.kill(before, signal.SIGCONT)
        except ProcessLookupError:
            assert long
        assert await assembling == written_sha(server, "stop") == expected_sha("stop", blocks)
        assert long == ("the server hangs" in server.log.read_text())


async def test_the_watchdog_ends_a_server_that_hangs(tmp_path: Path) -> None:
    patched = {"mhnos_runtime.supervisor.keeper": {"HANG_SECONDS": 2.0}}
    async with server_in(tmp_path, patched=patched) as server, client_of(server) as runtime:
        process = await spawn_writer(runtime, server, "hang", 64)
        assembling = asyncio.create_task(Assembler(process).run())
        before = server.server_pid()
        # It is watched from its first sign of life on.
        await runtime.ping()
        await asyncio.sleep(1.5)
        os.kill(before, signal.SIGSTOP)
        await eventually(lambda: server.server_pid() != before)
        await process.write("x")
        assert await assembling == written_sha(server, "hang") == expected_sha("hang", 64)
        assert "the server hangs; ending it" in server.log.read_text()


async def test_a_pause_of_all_of_it_is_no_hang(tmp_path: Path) -> None:
    """As when a machine sleeps: the watchdog finds an old sign of life, and a newer one unread."""
    patched = {"mhnos_runtime.supervisor.keeper": {"HANG_SECONDS": 2.0}}
    async with server_in(tmp_path, patched=patched) as server, client_of(server) as runtime:
        process = await runtime.spawn("shell", "cat", pty=False)
        await asyncio.sleep(1.5)
        before = server.server_pid()
        for number, pause_s in ((signal.SIGSTOP, 3.0), (signal.SIGCONT, 1.5)):
            for pid in (server.pid, before):
                os.kill(pid, number)
            await asyncio.sleep(pause_s)
        assert server.server_pid() == before
        await process.write("on\n")
        assert getattr(await anext(process.output()), "data", b"") == b"on\n"
        await process.close_stdin()
        assert (await process.wait()).code == 0


async def test_an_end_that_no_server_saw(tmp_path: Path) -> None:
    """Killed, stopped before the next one can start, and ended meanwhile: the true status comes all the
    same."""
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        wait = "while [ ! -e go ]; do :; done; echo last; exit 7"
        process = await runtime.spawn("shell", wait, pty=False)
        killed = await runtime.spawn("shell", "while [ ! -e go ]; do :; done; kill -USR1 $$", pty=False)
        os.kill(server.server_pid(), signal.SIGKILL)
        (server.workspace / "go").touch()
        ended = await asyncio.wait_for(process.wait(), 20)
        assert (ended.code, ended.signal, ended.reason) == (7, None, "exit")
        assert ended.output_bytes == 5
        assert ended.evidence.startswith("wait status")
        ended = await asyncio.wait_for(killed.wait(), 20)
        assert (ended.code, ended.signal, ended.reason) == (None, "SIGUSR1", "signal")


@pytest.mark.timeout(240)
async def test_many_processes_while_the_server_dies(tmp_path: Path, long: bool) -> None:
    """Each goes on where it was, its output whole, its next input typed once."""
    count = 500 if long else 50
    flags = ("--max-processes", str(count), "--retention-bytes", "64k")
    async with server_in(tmp_path, *flags) as server, client_of(server, request_timeout_s=120) as runtime:
        processes = await _start_many(runtime, server, count)
        first, last = _numbers(1, 2000), _numbers(2001, 4000)
        collected = [asyncio.create_task(_text(process)) for process in processes]
        await asyncio.gather(*(process.write("\n") for process in processes))
        started = time.monotonic()
        os.kill(server.server_pid(), signal.SIGKILL)
        await asyncio.gather(*(process.write("\n") for process in processes))
        print(f"{count} processes typed into {time.monotonic() - started:.2f} s after the kill")
        wanted = {f"{process.pid}": first + last for process in processes}
        got = {f"{process.pid}": await text for process, text in zip(processes, collected, strict=True)}
        assert got == wanted
        assert {(await process.wait()).code for process in processes} == {0}


async def _start_many(runtime: Runtime, server: TestServer, count: int) -> list[ClientProcess]:
    command = "read x; seq 1 2000; read y; seq 2001 4000"
    return [await runtime.spawn("shell", command, pty=False) for _ in range(count)]


def _numbers(first: int, last: int) -> str:
    return "".join(f"{number}\n" for number in range(first, last + 1))


async def _text(process: ClientProcess) -> str:
    return "".join([item.data.decode() async for item in process.output()])  # type: ignore[union-attr]


async def test_a_server_of_another_version_lists_and_ends_what_it_knows_nothing_of(tmp_path: Path) -> None:
    """And one of the first version again finds everything as it was: what nobody could read was kept."""
    async with server_in(tmp_path, patched=NO_PAUSES) as server, client_of(server) as runtime:
        kept = await runtime.spawn("shell", "sleep 600", name="kept", pty=False)
        ended = await runtime.spawn("shell", "sleep 600", name="ended", pty=False)
        patch(tmp_path, {**NO_PAUSES, "mhnos_runtime.process.facts": {"VERSION": 99}})
        await kill_server(server)
        rows = {row.pid: row for row in await runtime.list()}
        assert {rows[pid].type for pid in (kept.pid, ended.pid)} == {"unknown"}
        assert f"facts of version '{VERSION}'; this server reads 99" in server.log.read_text()
        await ended.kill()
        assert (await ended.wait()).signal == "SIGTERM"
        patch(tmp_path, NO_PAUSES)
        await kill_server(server)
        rows = {row.pid: row for row in await runtime.list()}
        assert (rows[kept.pid].type, rows[kept.pid].name) == ("shell", "kept")
        await kept.kill("SIGKILL")
