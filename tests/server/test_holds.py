"""Backpressure through a whole server: whose hold on the output is kept, and who takes it over."""

from __future__ import annotations

from pathlib import Path

from tests.server.client import connect, eventually
from tests.server.conftest import server_in


async def test_a_client_that_is_back_before_its_old_connection_is_known_to_be_gone(tmp_path: Path) -> None:
    """A process waited for the old hold for the whole stall time, though its client was reading again."""
    flags = ("--stall-seconds", "3600", "--retention-bytes", "64k")
    async with (
        server_in(tmp_path, *flags) as server,
        connect(server) as watcher,
        connect(server, newer=True) as old,
        connect(server, newer=True) as new,
    ):
        pid = await old.run("read x; head -c 3000000 /dev/zero")
        await old.send("ack", pid=pid, offset=0)
        await old.quiet()
        await new.ask("attach", pid=pid, **{"from": 0})
        old.vanish()

        async def alone() -> bool:
            rows = (await watcher.ask("list", all=True))["processes"]
            return [row["viewers"] for row in rows if row["pid"] == pid] == [1]

        await eventually(alone)
        await new.send("write", pid=pid, data="\r")
        exit_ = await new.exit(pid)
        assert exit_["bytes"] == 3_000_000
        assert len(new.output(pid)) == 3_000_000


async def test_one_who_asks_for_a_process_gets_it_from_the_first_byte(tmp_path: Path) -> None:
    """A fast program wrote more than is kept before the one who had asked for it was watching."""
    async with (
        server_in(tmp_path, "--retention-bytes", "64k") as server,
        connect(server, newer=True) as client,
    ):
        for _ in range(25):
            pid = await client.run("head -c 400000 /dev/zero")
            await client.exit(pid)
            assert len(client.output(pid)) == 400_000


async def test_one_who_is_cut_off_while_asking_loses_nothing(tmp_path: Path) -> None:
    flags = ("--stall-seconds", "3600", "--retention-bytes", "64k")
    flood = {"processType": "shell", "command": "head -c 3000000 /dev/zero", "pty": False, "key": "flood"}
    async with (
        server_in(tmp_path, *flags) as server,
        connect(server, newer=True) as old,
        connect(server, newer=True) as new,
    ):
        await old.send("spawn", **flood)
        old.vanish()
        pid = (await new.ask("spawn", **flood))["pid"]
        await new.exit(pid)
        assert len(new.output(pid)) == 3_000_000


async def test_one_who_does_not_come_back_holds_nothing_up_for_longer_than_a_stall(tmp_path: Path) -> None:
    flood = {"processType": "shell", "command": "head -c 3000000 /dev/zero", "pty": False}
    async with (
        server_in(tmp_path, "--stall-seconds", "0.2", "--retention-bytes", "64k") as server,
        connect(server, newer=True) as old,
        connect(server, newer=True) as other,
    ):
        await old.send("spawn", **flood)
        old.vanish()

        async def ended() -> bool:
            rows = (await other.ask("list", all=True))["processes"]
            return [row["exit"]["bytes"] for row in rows if row.get("exit")] == [3_000_000]

        await eventually(ended)
