"""The installed version takes over while everything runs, or is not let; and what is left when nobody hands
over."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest

from mhnos_runtime.client import Gap, Output, PtySize, Runtime
from mhnos_runtime.client.errors import RequestFailed
from mhnos_runtime.launch import CHANNEL_VERSION
from mhnos_runtime.testing import TestServer
from tests.durable.scene import (
    READER,
    Assembler,
    client_of,
    eventually,
    expected_sha,
    patch,
    server_in,
    spawn_writer,
    typing,
    write_script,
    written_sha,
)

END = b"~end~"


async def reload(server: TestServer, *flags: str) -> tuple[int, str]:
    """The verb, as a person would use it: exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mhnos_runtime",
        "reload",
        "--state-dir",
        str(server.state_dir),
        "--wait",
        "50s",
        *flags,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.timeout(200)
async def test_reloads_during_a_stream_while_someone_types(
    tmp_path: Path, dice: random.Random, long: bool
) -> None:
    """Nothing is uncertain after an orderly change: every key once, every byte once."""
    reloads, blocks = (20, 4096) if long else (2, 512)
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        write_script(server, "reader.py", READER)
        typist = await runtime.spawn("python", "reader.py", args=["typed", END.decode()], pty=PtySize(80, 24))
        writer = await spawn_writer(runtime, server, "reload", blocks)
        assembler = Assembler(writer)
        assembling = asyncio.create_task(assembler.run())
        await writer.write("x")
        keys = typing(4_000_000)
        at = 0

        async def reload_often() -> None:
            for _ in range(reloads):
                await asyncio.sleep(dice.random() * 0.3)
                code, said = await reload(server)
                assert code == 0, said
                assert re.fullmatch(r"reloaded in \d+\.\d\d s; (1 process|2 processes) went on\n", said), said

        reloading = asyncio.create_task(reload_often())
        while not reloading.done():
            typist.write_nowait(keys[at : at + 1])
            at += 1
            await asyncio.sleep(0.002)
        await reloading
        await typist.write(END)
        await typist.wait()
        assert (server.workspace / "typed").read_bytes() == keys[:at] + END
        assert typist.uncertain_input == []
        assert await assembling == written_sha(server, "reload") == expected_sha("reload", blocks)
        assert server.log.read_text().count('"reloading"') == reloads


@pytest.mark.timeout(200)
async def test_starts_during_reloads(tmp_path: Path) -> None:
    """Also one whose child is between fork and exec at the moment of the hand-over. Some at a time: on a busy
    machine the next server takes its while, and all that had piled up would be asked of it at once."""
    flags = ("--max-processes", "1000", "--retain-count", "2000", "--retention-bytes", "64k")
    async with (
        server_in(tmp_path, *flags) as server,
        client_of(server, request_timeout_s=120) as runtime,
    ):
        reloading = asyncio.create_task(_reload_twice(server))
        started: list[asyncio.Task[int | None]] = []
        while not reloading.done():
            if sum(not each.done() for each in started) < 20:
                started.append(asyncio.create_task(_exit_code(runtime, len(started) % 200)))
            await asyncio.sleep(0.03)
        await reloading
        assert await asyncio.gather(*started) == [number % 200 for number in range(len(started))]
        assert (await runtime.status()).stats.total_spawned == len(started)


async def _reload_twice(server: TestServer) -> None:
    for _ in range(2):
        code, said = await reload(server, "--wait", "60s")
        assert code == 0, said


async def _exit_code(runtime: Runtime, code: int) -> int | None:
    return (await (await runtime.spawn("shell", f"exit {code}", pty=False)).wait()).code


async def test_a_version_that_does_not_understand_the_state_leaves_all_running(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        process = await runtime.spawn("shell", "while read x; do echo got $x; done", pty=False)
        before = server.server_pid()
        patch(tmp_path, {"mhnos_runtime.supervisor.handover": {"STATE_VERSION": 99}})
        code, said = await reload(server, "--wait", "2s")
        assert code == 1
        assert "did not reload within 2 s; its processes run on" in said
        assert "not reloaded: the installed version does not understand" in server.log.read_text()
        await process.write("on\n")
        assert await anext(process.output()) == Output("stdout", 0, b"got on\n")
        assert server.server_pid() == before
        patch(tmp_path, {})
        code, said = await reload(server)
        assert code == 0, said
        await process.write("again\n")
        assert await anext(process.output()) == Output("stdout", 7, b"got again\n")
        await process.close_stdin()
        assert (await process.wait()).code == 0


async def test_a_version_that_cannot_take_over_is_told_so_at_once(tmp_path: Path) -> None:
    """It had waited for the server that never came, and then guessed."""
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        await runtime.status()
        file, before = server.state_dir / "server.json", server.server_pid()
        facts = json.loads(file.read_text())
        file.write_text(json.dumps({**facts, "stateVersion": facts["stateVersion"] - 1}))
        code, said = await reload(server, "--wait", "50s")
        assert (code, "does not understand the running one's state; all runs on" in said) == (1, True)
        assert server.server_pid() == before
        assert "reloading" not in server.log.read_text()


async def test_a_server_that_does_not_understand_the_supervisor_says_what_to_do(tmp_path: Path) -> None:
    """Its version was installed without a reload: it had waited for ever, behind a traceback."""
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        process = await runtime.spawn("shell", "cat", pty=False)
        patch(tmp_path, {"mhnos_runtime.launch": {"CHANNEL_VERSION": 99}})
        os.kill(server.server_pid(), signal.SIGKILL)
        said = f"speaks version {CHANNEL_VERSION} of the channel, this server 99: mhnos-runtime reload"
        await eventually(lambda: said in server.log.read_text())
        assert "Traceback" not in server.log.read_text()
        code, said = await reload(server)
        assert code == 0, said
        await process.write("on\n")
        assert await anext(process.output()) == Output("stdout", 0, b"on\n")
        await process.close_stdin()
        assert (await process.wait()).code == 0


async def test_there_is_nothing_to_reload(tmp_path: Path) -> None:
    server = TestServer(tmp_path)
    code, said = await reload(server)
    assert (code, f"no runtime uses {server.state_dir}" in said) == (1, True)
    server.state_dir.mkdir(exist_ok=True)
    (server.state_dir / "server.json").write_text(f'{{"pid": {os.getpid()}, "url": "http://127.0.0.1:9"}}')
    code, said = await reload(server)
    assert (code, f"no runtime uses {server.state_dir}" in said) == (1, True)


async def test_times_exits_and_ended_processes_go_over(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        ended = await runtime.spawn("shell", "echo before; exit 3", pty=False)
        await ended.wait()
        limited = await runtime.spawn("shell", "exec sleep 60", pty=False, timeout_ms=3000)
        code, said = await reload(server)
        assert code == 0, said
        during = await runtime.spawn("shell", "exit 5", pty=False)
        assert (await during.wait()).code == 5
        assert during.pid == limited.pid + 1
        over = await limited.wait()
        assert (over.reason, over.signal) == ("timeout", "SIGTERM")
        assert over.runtime_ms is not None
        assert 2900 <= over.runtime_ms < 8000
        late = await runtime.attach(ended.pid)
        assert [item.data async for item in late.output() if isinstance(item, Output)] == [b"before\n"]
        assert (await late.wait()).code == 3


async def test_what_a_supervisor_that_was_killed_leaves(tmp_path: Path) -> None:
    """As after a reboot: logs and records are there, pids go on, and nothing is said that nobody knows."""
    async with server_in(tmp_path) as server, client_of(server, reconnect=False) as runtime:
        ended = await runtime.spawn("shell", "echo early; exit 3", pty=False)
        await ended.wait()
        writer = await spawn_writer(runtime, server, "lost", 8)
        await writer.write("x")
        lost = await runtime.spawn("shell", "echo last words; cat", pty=False)
        assert await anext(lost.output()) == Output("stdout", 0, b"last words\n")
        assert await Assembler(writer).run() == expected_sha("lost", 8)
        # Written behind the start, within milliseconds; a busy machine makes more of them.
        await eventually((server.state_dir / "processes" / f"{lost.pid}.json").exists)
        os.kill(server.pid, signal.SIGKILL)
        await server.stop()
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        rows = {row.pid: row for row in await runtime.list(all=True)}
        assert rows.keys() == {ended.pid, writer.pid, lost.pid}
        late = await runtime.attach(lost.pid)
        assert [item.data async for item in late.output() if isinstance(item, Output)] == [b"last words\n"]
        how = await late.wait()
        assert (how.code, how.signal, how.reason, how.cpu_ms) == (None, None, "lost", None)
        assert how.runtime_ms is None
        assert "not seen" in how.evidence
        late = await runtime.attach(ended.pid)
        assert [item.data async for item in late.output() if isinstance(item, Output)] == [b"early\n"]
        assert (await late.wait()).code == 3
        late = await runtime.attach(writer.pid)
        assert await Assembler(late).run() == written_sha(server, "lost")
        assert (await runtime.spawn("shell", "exit", pty=False)).pid == lost.pid + 1


# The screen


PAINTER = """
import os, signal, sys, tty
tty.setraw(0)
def paint(*_):
    columns, rows = os.get_terminal_size()
    os.write(1, f"<{columns}x{rows}>".encode())
signal.signal(signal.SIGWINCH, paint)
paint()
while os.read(0, 1) != b"q": pass
"""


async def test_a_late_client_has_the_screen_drawn_anew(tmp_path: Path) -> None:
    """Two sizes, since most programs ignore the one that they know; and the true one at the end."""
    async with server_in(tmp_path) as server, client_of(server) as first, client_of(server) as late:
        write_script(server, "painter.py", PAINTER)
        process = await first.spawn("python", "painter.py", pty=PtySize(70, 20))
        output = process.output()
        assert await anext(output) == Output("stdout", 0, b"<70x20>")
        seen = b""
        again = await late.attach(process.pid, from_="end", repaint=True)
        async for item in again.output():
            assert not isinstance(item, Gap)
            assert (item.replay, item.offset >= 7) == (False, True)
            seen += item.data
            if seen.endswith(b"<70x20>"):
                break
        assert seen == b"<70x19><70x20>"
        row = next(row for row in await late.list() if row.pid == process.pid)
        assert (row.pty.cols, row.pty.rows) == (70, 20)  # type: ignore[union-attr]
        await again.write("q")
        await eventually(lambda: process.exit is not None)


async def test_a_spoilt_screen_is_drawn_anew_after_the_death_of_a_server(tmp_path: Path) -> None:
    """What tells the loss of a connection stands across the screen of a full-screen program."""
    async with server_in(tmp_path) as server, client_of(server) as client:
        write_script(server, "painter.py", PAINTER)
        process = await client.spawn("python", "painter.py", pty=PtySize(70, 20))
        output, seen = process.output(), b""
        assert await anext(output) == Output("stdout", 0, b"<70x20>")
        process.repaint_on_resume = True
        os.kill(server.server_pid(), signal.SIGKILL)
        async for item in output:
            assert isinstance(item, Output)
            seen += item.data
            if seen.endswith(b"<70x20>"):
                break
        assert seen == b"<70x19><70x20>"
        await process.write("q")
        await eventually(lambda: process.exit is not None)


@pytest.mark.parametrize("how", ["killed", "reloaded"])
async def test_a_server_comes_up_without_the_workspace(tmp_path: Path, how: str) -> None:
    """It did not, and nobody could reach what ran, until the folder was back."""
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        process = await runtime.spawn("shell", "cat", pty=False)
        moved = server.workspace.rename(tmp_path / "moved")
        if how == "killed":
            os.kill(server.server_pid(), signal.SIGKILL)
        else:
            code, said = await reload(server)
            assert code == 0, said
        await process.write("on\n")
        assert await anext(process.output()) == Output("stdout", 0, b"on\n")
        with pytest.raises(RequestFailed, match="moved or removed"):
            await runtime.spawn("shell", "true", pty=False)
        moved.rename(server.workspace)
        assert (await (await runtime.spawn("shell", "true", pty=False)).wait()).code == 0
        await process.close_stdin()
        assert (await process.wait()).code == 0
