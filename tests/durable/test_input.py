"""What is typed arrives exactly once, and what is started starts once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from mhnos_runtime.client import ClientProcess, InputUncertain, Output, PtySize, RequestFailed
from mhnos_runtime.testing import TestServer
from tests.durable.scene import (
    NO_PAUSES,
    READER,
    check_typed,
    client_of,
    eventually,
    kill_server,
    server_in,
    timed,
    typing,
    write_script,
)
from tests.server.client import connect as connect_raw

END = b"~end~"


async def _kill_often(server: TestServer, dice: random.Random, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(dice.random() * 0.5)
        await kill_server(server)


async def _type(process: ClientProcess, dice: random.Random, data: bytes, until: asyncio.Task[None]) -> bytes:
    """Type `data` in pieces of any size, the last of it when the faults are over; return what was typed."""
    start = 0
    while start < len(data) and not until.done():
        size = dice.choice((1, 3, 50, 5000))
        await process.write(data[start : start + size])
        start += size
    await until
    await process.write(END)
    return data[:start] + END


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pty", [False, PtySize(80, 24)], ids=["pipes", "terminal"])
async def test_input_over_kills(tmp_path: Path, dice: random.Random, long: bool, pty: PtySize | bool) -> None:
    kills = 60 if long else 5
    async with server_in(tmp_path, patched=NO_PAUSES) as server, client_of(server) as runtime:
        write_script(server, "reader.py", READER)
        process = await runtime.spawn("python", "reader.py", args=["typed", END.decode()], pty=pty)
        assert await _first(process) == b"ready"
        killing = asyncio.create_task(_kill_often(server, dice, kills))
        async with timed(f"typing over {kills} kills"):
            typed = await _type(process, dice, typing(32_000_000), killing)
            await process.wait()
        received = (server.workspace / "typed").read_bytes()
        missing = check_typed(typed, received, list(process.uncertain_input))
        told = sum(each.to - each.from_ for each in process.uncertain_input)
        print(f"{len(typed)} bytes typed, {told} reported uncertain, {missing} of them missing")


async def _first(process: ClientProcess) -> bytes:
    async for item in process.output():
        assert isinstance(item, Output)
        return item.data.strip()
    raise AssertionError("it ended")


# Kills a server between its two notes, before or after what it notes is done.
DYING = """
import os, signal
from mhnos_runtime.process.client_input import ClientInput
def dying(name, flag):
    method = getattr(ClientInput, name)
    def die_first(self, count):
        if os.path.exists(flag):
            os.unlink(flag)
            os.kill(os.getpid(), signal.SIGKILL)
        method(self, count)
    def die_last(self, count):
        method(self, count)
        if os.path.exists(flag):
            os.unlink(flag)
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(ClientInput, name, die_last if name == "begin" else die_first)
dying("begin", "{folder}/before")
dying("wrote", "{folder}/after")
"""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_kill_in_the_one_moment_of_which_nobody_knows(tmp_path: Path, moment: str) -> None:
    """Between the note that it will type and the note that it has: told, and not typed again."""
    told: list[InputUncertain] = []
    async with server_in(tmp_path) as server:
        (tmp_path / "customs" / "sitecustomize.py").write_text(DYING.replace("{folder}", str(tmp_path)))
        await kill_server(server)
        async with client_of(server, on_uncertain=told.append) as runtime:
            process = await runtime.spawn("shell", "cat > typed", pty=False)
            await process.write("one\n")
            (tmp_path / moment).touch()
            await process.write("two\n")
            await process.write("three\n")
            await process.close_stdin()
            assert (await process.wait()).code == 0
            assert told == [InputUncertain(process.pid, 4, 8, b"two\n")]
        received = (server.workspace / "typed").read_bytes()
        assert received == (b"one\nthree\n" if moment == "before" else b"one\ntwo\nthree\n")
        assert check_typed(b"one\ntwo\nthree\n", received, told) == (4 if moment == "before" else 0)


async def test_a_write_that_cannot_be_typed_any_more_fails(tmp_path: Path) -> None:
    """Nobody is attached, and what waits for a process that does not read must not be waited for after its
    end."""
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        pid = (await runtime.spawn("shell", "exec sleep 60", pty=False, attach=False)).pid
        process = runtime.handle(pid)
        writing = asyncio.create_task(process.write(b"x" * 500_000))
        await eventually(lambda: runtime.input(pid).acknowledged > 0)
        await process.kill("SIGKILL")
        with pytest.raises(RequestFailed) as caught:
            await asyncio.wait_for(writing, 10)
        assert caught.value.code == "input-closed"


async def test_what_is_uncertain_is_told_until_the_client_goes_on(tmp_path: Path) -> None:
    """The answer that told it could be lost with its connection, and with the next server."""
    async with server_in(tmp_path) as server:
        async with connect_raw(server, newer=True) as client:
            pid = await client.spawn("shell", "cat", pty=False)
            assert (await client.ask("openInput", pid=pid, client="me"))["next"] == 0
            _leave_intent(server, pid, typed=3, until=8)
        await kill_server(server)
        for _ in range(2):
            async with connect_raw(server, newer=True) as client:
                opened = await client.ask("openInput", pid=pid, client="me")
                assert (opened["next"], opened["uncertainFrom"]) == (8, 3)
            await kill_server(server)
        async with connect_raw(server, newer=True) as client:
            await client.ask("attach", pid=pid)
            await client.ask("openInput", pid=pid, client="me")
            await client.number(pid, 8, b"on\n")
            assert (await client.until("inputAck"))["next"] == 11
            await client.text(pid, "on\n")
            opened = await client.ask("openInput", pid=pid, client="me")
            assert (opened["next"], "uncertainFrom" in opened) == (11, False)
            await client.ask("kill", pid=pid)


def _leave_intent(server: TestServer, pid: int, typed: int, until: int) -> None:
    """As a server leaves it that is killed between its note and the end of its write."""
    from mhnos_runtime.output import layout

    path = server.state_dir / "processes" / f"{pid}.log"
    with path.open("r+b") as file:
        for slot in range(layout.INPUT_SLOTS):
            start = (layout.W_INPUTS + slot * layout.INPUT_WORDS) * 8
            file.seek(start)
            if any(file.read(8)):
                file.write(typed.to_bytes(8, "little") + until.to_bytes(8, "little"))
                return
    raise AssertionError("nobody types")


# Starting once


@pytest.mark.timeout(120)
async def test_each_start_starts_once_over_kills(tmp_path: Path, dice: random.Random, long: bool) -> None:
    kills, starts = (30, 300) if long else (4, 40)
    flags = ("--max-processes", "400", "--retain-count", "400", "--retention-bytes", "64k")
    async with server_in(tmp_path, *flags, patched=NO_PAUSES) as server, client_of(server) as runtime:
        killing = asyncio.create_task(_kill_often(server, dice, kills))
        pids: dict[str, int] = {}
        for number in range(starts):
            name = f"n{number}"
            process = await runtime.spawn("shell", f"echo {name} >> started; cat", name=name, pty=False)
            pids[name] = process.pid
            await asyncio.sleep(dice.random() * 0.1)
        await killing
        rows = {str(row.name): row.pid for row in await runtime.list(all=True)}
        assert rows == pids
        await eventually(lambda: len((server.workspace / "started").read_text().split()) >= starts)
        assert sorted((server.workspace / "started").read_text().split()) == sorted(pids)


async def test_a_key_is_one_request_for_as_long_as_its_process_is_kept(tmp_path: Path) -> None:
    request = {"processType": "shell", "command": "exit 4", "pty": False, "key": "one"}
    async with server_in(tmp_path, "--retain-seconds", "600") as server:
        async with connect_raw(server, newer=True) as client:
            first = await client.ask("spawn", **request)
            await client.exit(first["pid"])
        await kill_server(server)
        async with connect_raw(server) as client:
            again = await client.ask("spawn", **request)
            assert again["pid"] == first["pid"]
            assert (await client.exit(first["pid"]))["code"] == 4
            other = await client.ask("spawn", **{**request, "command": "exit 5"})
            assert (other["type"], other["code"], other["retry"]) == ("error", "key-conflict", False)
            assert (await client.ask("spawn", **{**request, "key": "two"}))["pid"] != first["pid"]


async def test_ctrl_c_reaches_a_program_over_a_kill(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client_of(server) as runtime:
        process = await runtime.spawn(
            "shell", "trap 'echo caught; exit 9' INT; echo on; while :; do sleep 0.05; done"
        )
        assert await _first(process) == b"on"
        killing = asyncio.create_task(kill_server(server))
        process.write_nowait("\x03")
        await killing
        assert (await asyncio.wait_for(process.wait(), 20)).code == 9
