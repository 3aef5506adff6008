"""The server killed, restarted and started wrongly: nothing that runs is harmed, and not a byte is lost."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import OUTPUT, PATIENCE, Client, Closed, Message, connect, eventually
from tests.server.conftest import ENVIRONMENT, server_in

MIB = 1 << 20
TOTAL = 24 * MIB
FLOOD = f"""
import hashlib, os
input()
block = hashlib.shake_128(b"flood").digest({MIB})
for _ in range({TOTAL // MIB}):
    data = block
    while data: data = data[os.write(1, data):]
"""


async def replaced(server: TestServer, before: int) -> None:
    """Wait until there is another server than the one with this OS pid."""

    async def changed() -> bool:
        return server.server_pid() != before

    await eventually(changed)


async def end_server(server: TestServer, how: signal.Signals) -> None:
    """Kill the server, or ask the supervisor for a new one; return when that is there."""
    before = server.server_pid()
    os.kill(before if how is signal.SIGKILL else server.pid, how)
    await replaced(server, before)


class Follower:
    """Reads the output of one process over any number of connections; checks offsets, acknowledges."""

    def __init__(self, server: TestServer, pid: int) -> None:
        self.server = server
        self.pid = pid
        self.offset = 0
        self.hash = hashlib.sha256()
        self.ids: set[str] = set()
        self.exit: Message | None = None

    async def run(self) -> None:
        while self.exit is None:
            try:
                async with connect(self.server, newer=True) as client:
                    self.ids.add(client.hello["serverId"])
                    await client.send("attach", pid=self.pid, **{"from": self.offset})
                    await self._follow(client)
            except (Closed, ConnectionError):
                continue

    async def _follow(self, client: Client) -> None:
        while self.exit is None:
            message = await client.next()
            client.seen.clear()
            assert message["type"] not in ("gap", "error"), message
            if message["type"] in OUTPUT:
                assert message["offset"] == self.offset
                self.hash.update(message["data"])
                self.offset = message["next"]
                await client.send("ack", pid=self.pid, offset=self.offset)
            elif message["type"] == "exit":
                self.exit = message


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
async def test_a_server_that_ends_in_a_flood_loses_no_byte(tmp_path: Path, how: signal.Signals) -> None:
    """Several times over; the client comes back and says where it was."""
    # However long the next server takes to start on a busy machine, the flood waits for its reader.
    async with server_in(tmp_path, "--stall-seconds", "120") as server:
        async with connect(server, newer=True) as client:
            pid = await client.spawn("python", "-c", FLOOD)
            await client.send("ack", pid=pid, offset=0)
            await client.send("write", pid=pid, data="\r")
            await client.until("stdout")
            client.vanish()
        follower = Follower(server, pid)
        following = asyncio.create_task(follower.run())
        for part in range(1, 4):
            while follower.offset < part * TOTAL // 5 and not following.done():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)
            await end_server(server, how)
        await asyncio.wait_for(following, 2 * PATIENCE)
        assert follower.offset == TOTAL
        block = hashlib.shake_128(b"flood").digest(MIB)
        assert follower.hash.digest() == hashlib.sha256(block * (TOTAL // MIB)).digest()
        assert follower.exit is not None
        assert (follower.exit["code"], follower.exit["bytes"]) == (0, TOTAL)
        assert len(follower.ids) == 1


async def test_a_reload_at_the_first_moment_is_a_reload(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        os.kill(server.pid, signal.SIGHUP)
        async with connect(server) as client:
            await client.exit(await client.run("true"))


async def test_a_client_that_says_no_goodbye_holds_nobody_up(tmp_path: Path) -> None:
    """A laptop that sleeps: its connection is there, and nothing answers. On a busy machine a restart may
    take long for once, with nobody to wait for."""

    async def seconds(server: TestServer) -> float:
        began = time.monotonic()
        await end_server(server, signal.SIGHUP)
        async with connect(server):
            return time.monotonic() - began

    async with server_in(tmp_path) as server:
        async with connect(server):
            pass
        for _ in range(5):
            alone = await seconds(server)
            async with connect(server):
                # It reads nothing more, and does not answer the server's goodbye.
                if await seconds(server) < 2 * alone + 1.5:
                    return
        pytest.fail("each time the server waited for a client that sleeps")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
async def test_the_next_server_knows_everything(tmp_path: Path, how: signal.Signals) -> None:
    async with server_in(tmp_path) as server:
        async with connect(server) as client:
            ended = await client.run("echo before; exit 3")
            await client.exit(ended)
            shell = await client.spawn("shell", "cat", name="mine", pty={"cols": 44, "rows": 11})
            await client.send("resize", pid=shell, cols=55, rows=12)
            await client.send("write", pid=shell, data="typed before\r")
            await client.text(shell, "typed before\r\ntyped before")
            meanwhile = await client.run("read x; exit 4")
            os.kill(server.server_pid(), signal.SIGSTOP)
            # It ends while nobody is there to see it but the supervisor.
            os.kill(_os_pid(server, "read x; exit 4"), signal.SIGKILL)
            await end_server(server, signal.SIGKILL)
            assert await client.expect_close() in (None, 1006)
        async with connect(server) as client:
            closing = asyncio.create_task(client.expect_close())
            await end_server(server, how)
            assert await closing in ((1001,) if how is signal.SIGHUP else (None, 1006))
        async with connect(server) as client:
            rows = {row["pid"]: row for row in (await client.ask("list", all=True))["processes"]}
            assert rows.keys() == {ended, shell, meanwhile}
            assert (rows[shell]["name"], rows[shell]["pty"]) == ("mine", {"cols": 55, "rows": 12})
            assert rows[ended]["exit"]["code"] == 3
            assert (rows[meanwhile]["exit"]["signal"], rows[meanwhile]["exit"]["reason"]) == (
                "SIGKILL",
                "signal",
            )
            await client.ask("attach", pid=ended)
            assert client.output(ended) == "before\n"
            await client.ask("attach", pid=shell)
            await client.send("write", pid=shell, data="typed after\r")
            await client.text(shell, "typed after\r\ntyped after")
            assert client.output(shell).count("typed before") == 2
            new = await client.run("exit 0")
            assert new == meanwhile + 1
            stats = (await client.ask("list"))["stats"]
            assert stats["totalSpawned"] == 4
            assert (await client.ask("kill", pid=shell))["type"] == "killed"


def _os_pid(server: TestServer, command: str) -> int:
    """Of the child of the supervisor that runs this line of shell."""
    for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        if command.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError(f"nobody runs {command}")


async def test_clients_that_connect_while_there_is_no_server_wait(tmp_path: Path) -> None:
    """The listening socket stays open: nobody is refused, whatever the server does."""
    async with server_in(tmp_path) as server:
        for _ in range(3):
            os.kill(server.server_pid(), signal.SIGKILL)
            async with connect(server) as client:
                assert (await client.ask("ping"))["type"] == "pong"


async def test_input_arrives_once_or_not_at_all(tmp_path: Path) -> None:
    """What was written before the server died is never written again by the next one."""
    async with server_in(tmp_path) as server:
        async with connect(server) as client:
            pid = await client.run("cat")
            for number in range(200):
                await client.send("write", pid=pid, data=f"{number}\r")
            await client.text(pid, "50\n")
            await end_server(server, signal.SIGKILL)
        async with connect(server) as client:
            await client.send("attach", pid=pid)
            await client.send("write", pid=pid, data="end\r")
            lines = (await client.text(pid, "end\n")).split()
            assert lines == [*map(str, range(len(lines) - 1)), "end"]
            await client.ask("kill", pid=pid)


# Starting wrongly


async def refused(directory: Path, *flags: str, **environment: str) -> str:
    """What `serve` says when it does not start: one clear line, perhaps with what to do, and no traceback."""
    runtime = TestServer(directory, *flags, environment={**ENVIRONMENT, **environment})
    with pytest.raises(RuntimeError) as caught:
        async with runtime:
            pass
    assert runtime._process is not None
    assert runtime._process.returncode not in (0, None)
    text = str(caught.value).partition("\n")[2].strip()
    assert "Traceback" not in text
    assert 1 <= len(text.splitlines()) <= 3
    return text


async def test_a_second_runtime_on_the_same_state(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, connect(server) as client:
        pid = await client.run("cat")
        token = server.token
        text = await refused(tmp_path / "other", MHNOS_STATE_DIR=str(server.state_dir))
        assert str(server.state_dir) in text
        assert str(server.pid) in text
        assert server.token == token
        await client.send("write", pid=pid, data="alive\r")
        await client.text(pid, "alive\n")
        await client.ask("kill", pid=pid)


async def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        text = await refused(tmp_path, "--port", port)
    assert port in text
    assert "in use" in text


async def test_a_workspace_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    text = await refused(tmp_path, MHNOS_WORKSPACE=str(path))
    assert str(path) in text
    assert path.read_text() == "x"


async def test_a_workspace_that_is_missing(tmp_path: Path) -> None:
    """A name with a slip of the pen must not become an empty folder that is served."""
    path = tmp_path / "new"
    text = await refused(tmp_path, MHNOS_WORKSPACE=str(path))
    assert str(path) in text
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_workspace_that_is_not_writable(tmp_path: Path) -> None:
    path = tmp_path / "closed"
    path.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    text = await refused(tmp_path, MHNOS_WORKSPACE=str(path))
    assert str(path) in text
    assert "writ" in text


@pytest.mark.parametrize("flags", [("--port", "70000"), ("--host", "no such host"), ("--sandbox", "tight")])
async def test_a_wrong_value(tmp_path: Path, flags: tuple[str, str]) -> None:
    text = await refused(tmp_path, *flags)
    assert flags[1] in text


async def test_authentication_cannot_be_switched_off_for_the_world(tmp_path: Path) -> None:
    text = await refused(tmp_path, "--auth", "none", "--host", "0.0.0.0")
    assert "--auth" in text


async def test_a_port_is_free_again_after_the_end(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, connect(server) as client:
        await client.ask("ping")
        port = server.url.rpartition(":")[2]
    async with server_in(tmp_path, "--port", port) as server, connect(server) as client:
        assert server.url.endswith(port)
        await client.ask("ping")
