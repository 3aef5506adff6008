"""Whose place in the output is kept, and who takes it over."""

from __future__ import annotations

from pathlib import Path

from tests.server.client import connect, eventually
from tests.server.conftest import server_in


async def test_a_client_that_is_back_before_its_old_connection_is_known_to_be_gone(tmp_path: Path) -> None:
    """A process waited for the old place for the whole stall time, though its client was reading again."""
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
