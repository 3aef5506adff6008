"""Names, rename, inspect and remove, and records that go at the end, over real connections."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, Message, connect, eventually
from tests.server.conftest import server_in
from tests.server.test_grants import create, granted
from tests.server.test_restart import end_server

# One event loop for the module, on which its server and its clients live.
pytestmark = pytest.mark.asyncio(loop_scope="module")

BAD = [
    "",
    "-a",
    "a-",
    "-",
    "Ä",
    "ä",
    "A",
    "a b",
    "a.b",
    "a_b",
    "123",
    "0",
    "a\n",
    "a" * 41,
    "a" * 1_000_000,
    "\x00",
    "١٢٣a",
]
GOOD = ["a", "a1", "1a", "a-b", "a--b", "7-7", "x" * 40, "web"]


async def gone(client: Client, pid: int) -> None:
    """Wait until nobody finds the process."""

    async def unknown() -> bool:
        return (await client.ask("inspect", pid=pid)).get("code") == "unknown-process"

    await eventually(unknown)


def files(server: TestServer, pid: int) -> list[str]:
    """What is kept of a process on disk."""
    return sorted(path.name for path in (server.state_dir / "processes").glob(f"{pid}.*"))


async def no_files(server: TestServer, pid: int) -> None:
    async def none() -> bool:
        return not files(server, pid)

    await eventually(none)


# Names


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name[:8]))
async def test_what_is_no_name_is_refused_and_starts_nothing(client: Client, name: str) -> None:
    before = (await client.ask("status"))["stats"]["totalSpawned"]
    for kind in ("spawn", "plan"):
        refused = await client.ask(kind, processType="shell", command="true", name=name)
        assert refused["code"] == "invalid-argument"
        assert "name" in refused["error"]
        assert len(json.dumps(refused)) < 1000
    assert (await client.ask("status"))["stats"]["totalSpawned"] == before


@pytest.mark.parametrize("name", GOOD)
async def test_a_name_finds_its_process_in_every_request(client: Client, other: Client, name: str) -> None:
    pid = await client.spawn("shell", "cat", name=name, attach=False)
    assert (await client.ask("attach", pid=name))["pid"] == pid
    assert (await client.ask("inspect", pid=name))["process"]["pid"] == pid
    assert [row["pid"] for row in (await client.ask("stats", pid=name))["processes"]] == [pid]
    assert (await client.ask("credentials", pid=name))["pid"] == pid
    await client.send("write", pid=name, data=f"typed into {name}\n")
    await client.text(pid, f"typed into {name}")
    await client.send("ack", pid=name, offset=1)
    await client.send("resize", pid=name, cols=77, rows=7)
    assert (await client.ask("inspect", pid=name))["process"]["pty"] == {"cols": 77, "rows": 7}
    assert (await client.ask("openInput", pid=name, client="c"))["pid"] == pid
    assert (await client.ask("detach", pid=name))["pid"] == pid
    assert (await client.ask("inspect", pid=name))["process"]["viewers"] == 0
    assert (await client.ask("closeStdin", pid=name))["pid"] == pid
    assert (await other.ask("kill", pid=name))["pid"] == pid
    assert (await client.ask("remove", pid=name))["pid"] == pid


async def test_a_name_that_nothing_has_is_as_an_unknown_pid(client: Client) -> None:
    for kind in ("attach", "stats", "closeStdin", "credentials", "inspect", "remove"):
        error = await client.ask(kind, pid="nobody")
        assert (error["code"], error["error"]) == ("unknown-process", "Process nobody not found")
        assert "pid" not in error
    assert (await client.ask("openInput", pid="nobody", client="c"))["code"] == "unknown-process"
    assert (await client.ask("rename", pid="nobody", name="somebody"))["code"] == "unknown-process"
    assert (await client.ask("kill", pid="nobody")) == {**client.seen[-1], "type": "killed", "pid": 0}
    assert (await client.ask("detach", pid="nobody"))["pid"] == 0
    for kind, more in (("write", {"data": "x"}), ("resize", {"cols": 7, "rows": 7}), ("ack", {"offset": 0})):
        assert (await client.ask_any(kind, pid="nobody", **more))["type"] == "pong"


@pytest.mark.parametrize("handle", ["", "1000", "0", "x" * 41, "x" * 1_000_000], ids=lambda text: text[:8])
async def test_what_can_be_no_name_finds_nothing(client: Client, handle: str) -> None:
    for kind in ("attach", "kill", "inspect", "remove", "stats"):
        refused = await client.ask(kind, pid=handle)
        assert refused["code"] == "invalid-argument"
        assert "pid" in refused["error"]


async def test_a_name_is_taken_while_its_process_runs_and_no_longer(client: Client) -> None:
    pid = await client.run("read x", name="unique")
    refused = await client.ask("spawn", processType="shell", command="true", name="unique")
    assert refused["code"] == "name-taken"
    assert f"process {pid} " in refused["hint"]
    assert not refused["retry"]
    await client.ask("kill", pid="unique")
    second = await client.run("read x", name="unique")
    assert (await client.ask("inspect", pid="unique"))["process"]["pid"] == second
    await client.ask("kill", pid=second)
    # Of ended ones it is the one that ended last, however they were started.
    assert (await client.ask("inspect", pid="unique"))["process"]["pid"] == second
    await client.ask("remove", pid="unique")
    assert (await client.ask("inspect", pid="unique"))["process"]["pid"] == pid


async def test_of_many_starts_with_one_name_at_once_one_wins(server: TestServer) -> None:
    async def start() -> Message:
        async with connect(server) as client:
            return await client.ask("spawn", processType="shell", command="read x", pty=False, name="race")

    answers = await asyncio.gather(*(start() for _ in range(20)))
    (won,) = [each["pid"] for each in answers if each["type"] == "spawned"]
    assert [each["code"] for each in answers if each["type"] == "error"] == ["name-taken"] * 19
    async with connect(server) as client:
        assert [
            row["pid"] for row in (await client.ask("list"))["processes"] if row.get("name") == "race"
        ] == [won]
        await client.ask("kill", pid=won)


async def test_a_start_that_fails_gives_its_name_back(client: Client) -> None:
    for _ in range(2):
        failed = await client.ask("spawn", processType="python", command="there-is-none.py", name="fails")
        assert failed["code"] == "not-found"
    await client.run("true", name="fails")


async def test_a_start_that_is_repeated_by_its_key_finds_its_process(client: Client, other: Client) -> None:
    request = {"processType": "shell", "command": "read x", "pty": False, "name": "keyed", "key": "names-1"}
    answers = await asyncio.gather(client.ask("spawn", **request), other.ask("spawn", **request))
    assert answers[0]["pid"] == answers[1]["pid"]
    await client.ask("kill", pid="keyed")
    assert (await client.ask("spawn", **request))["pid"] == answers[0]["pid"]


async def test_a_limited_grant_learns_of_no_other_process_by_name(server: TestServer, client: Client) -> None:
    mine = await client.run("read x", name="mine")
    other = await client.run("read x", name="other")
    token = await create(server, "names", "control", processes=[mine])
    async with granted(server, token) as limited:
        assert (await limited.ask("attach", pid="mine"))["pid"] == mine
        for kind in ("attach", "stats", "closeStdin", "credentials", "inspect", "remove"):
            assert await _text(limited, kind, "other") == await _text(limited, kind, "nobody")
        assert (await limited.ask("kill", pid="other"))["pid"] == 0
        for name in ("other", "free"):
            assert (await limited.ask("rename", pid="mine", name=name))["code"] == "forbidden"
        # The name goes to another process, and the grant does not go with it.
        await client.ask("rename", pid="mine", name=None)
        await client.ask("rename", pid="other", name="mine")
        assert (await limited.ask("inspect", pid="mine"))["code"] == "unknown-process"
        assert (await limited.ask("inspect", pid=mine))["process"]["pid"] == mine
    for pid in (mine, other):
        await client.ask("kill", pid=pid)


async def _text(client: Client, kind: str, handle: str) -> tuple[str, str]:
    error = await client.ask(kind, pid=handle)
    return error["code"], error["error"].replace(handle, "")


# Rename


async def test_a_process_is_renamed_while_it_runs_and_when_it_has_ended(client: Client) -> None:
    pid = await client.run("read x", name="first")
    assert (await client.ask("rename", pid="first", name="second"))["name"] == "second"
    assert (await client.ask("inspect", pid="first"))["code"] == "unknown-process"
    assert (await client.ask("rename", pid="second", name="second"))["name"] == "second"
    taker = await client.run("true", name="first")
    assert (await client.ask("rename", pid="second", name=None))["name"] is None
    assert "name" not in (await client.ask("inspect", pid=pid))["process"] or (
        (await client.ask("inspect", pid=pid))["process"]["name"] is None
    )
    await client.ask("kill", pid=pid)
    assert (await client.ask("rename", pid=pid, name="ended"))["pid"] == pid
    assert (await client.ask("inspect", pid="ended"))["process"]["status"] == "exited"
    assert taker != pid


async def test_no_process_is_renamed_to_a_name_that_is_taken(client: Client) -> None:
    """Of an ended process nobody would see that the name means another one."""
    holder, running = await client.run("read x", name="held"), await client.run("read x")
    ended = await client.run("true", name="over")
    await client.exit(ended)
    for pid in (running, ended):
        refused = await client.ask("rename", pid=pid, name="held")
        assert refused["code"] == "name-taken"
        assert f"process {holder} " in refused["hint"]
        assert refused["pid"] == pid
    for name in BAD[:12]:
        assert (await client.ask("rename", pid=running, name=name))["code"] == "invalid-argument"
    assert (await client.ask("rename", pid=running))["code"] == "invalid-argument"
    for pid in (holder, running):
        await client.ask("kill", pid=pid)


# Inspect


async def test_inspect_tells_all_that_is_known_and_no_secret(client: Client) -> None:
    pid = await client.run(
        "echo out; read x",
        name="looked-at",
        key="secret-key",
        lingerMs=60_000,
        options={"timeout": 50_000, "env": {"PASSWORD": "hush"}},
        limits={"tasks": 77},
        remove=True,
    )
    answer = await client.ask("inspect", pid=pid)
    shown = answer["process"]
    assert {**shown, "startTime": 0, "isolation": 0, "osPid": 0} == {
        "pid": pid,
        "type": "shell",
        "command": "echo out; read x",
        "args": [],
        "startTime": 0,
        "status": "running",
        "name": "looked-at",
        "cwd": "/",
        "pty": None,
        "osPid": 0,
        "firstOffset": 0,
        "nextOffset": shown["nextOffset"],
        "viewers": 1,
        "sandbox": "none",
        "isolation": 0,
        "exit": None,
        "remove": True,
        "lingerMs": 60_000,
        "timeoutMs": 50_000,
        "limits": shown["limits"],
    }
    assert shown["limits"]["tasks"] == 77
    assert "secret-key" not in json.dumps(answer)
    assert "hush" not in json.dumps(answer)
    await client.ask("kill", pid=pid)


async def test_inspect_shortens_nothing_and_lists_leave_out_what_few_ask_for(client: Client) -> None:
    long = "true " + "x" * 5000
    pid = await client.run(long)
    await client.exit(pid)
    shown = (await client.ask("inspect", pid=pid))["process"]
    assert shown["command"] == long
    assert shown["exit"]["code"] == 0
    assert shown["lingerMs"] is shown["timeoutMs"] is None
    rows = (await client.ask("list", all=True))["processes"]
    (row,) = (each for each in rows if each["pid"] == pid)
    assert not {"lingerMs", "timeoutMs", "limits"} & row.keys()


# Remove


async def test_a_removed_process_is_gone_from_lists_and_from_disk(server: TestServer, client: Client) -> None:
    pid = await client.run("echo x", name="rubbish")
    await client.exit(pid)
    await eventually(lambda: _there(server, pid))
    assert (await client.ask("remove", pid="rubbish")) == {**client.seen[-1], "type": "removed", "pid": pid}
    assert pid not in [row["pid"] for row in (await client.ask("list", all=True))["processes"]]
    for kind in ("attach", "inspect", "remove", "credentials"):
        assert (await client.ask(kind, pid=pid))["code"] == "unknown-process"
    await no_files(server, pid)


async def _there(server: TestServer, pid: int) -> bool:
    return files(server, pid) == [f"{pid}.json", f"{pid}.log"]


async def test_a_running_process_is_not_removed(client: Client) -> None:
    pid = await client.run("read x")
    refused = await client.ask("remove", pid=pid)
    assert (refused["code"], refused["pid"]) == ("still-running", pid)
    assert (await client.ask("inspect", pid=pid))["process"]["status"] == "running"
    await client.ask("kill", pid=pid)


async def test_who_reads_a_removed_process_reads_it_to_the_end(server: TestServer, newer: Client) -> None:
    """As a file that is unlinked while it is read: nothing is cut off, and nobody finds it any more."""
    async with connect(server, newer=True, max_msg_size=1 << 20) as slow, connect(server) as remover:
        pid = await slow.run("head -c 900000 /dev/zero; echo end", attach=False)

        async def ended() -> bool:
            return bool((await remover.ask("inspect", pid=pid))["process"]["status"] == "exited")

        await eventually(ended)
        # More than the sockets between the two hold, so that it is still read when the record goes.
        for number in range(20):
            await slow.send("attach", id=f"attach-{number}", pid=pid)
        await slow.next()
        assert (await remover.ask("remove", pid=pid))["type"] == "removed"
        assert (await remover.ask("attach", pid=pid))["code"] == "unknown-process"
        exit_ = await slow.exit(pid)
        assert exit_["bytes"] == 900_004
        assert slow.output(pid).endswith("end\n")
        assert (await slow.ask("attach", pid=pid))["code"] == "unknown-process"
        await no_files(server, pid)


# Records that go at the end


async def test_a_record_goes_at_the_end_when_nobody_watches(server: TestServer, client: Client) -> None:
    async with connect(server) as starter:
        pid = await starter.run("read x", remove=True, attach=False)
        assert (await starter.ask("inspect", pid=pid))["process"]["remove"] is True
    await client.ask("kill", pid=pid)
    await gone(client, pid)
    await no_files(server, pid)


async def test_a_record_goes_when_its_end_was_read(server: TestServer, client: Client) -> None:
    async with connect(server) as starter:
        pid = await starter.run("echo all of it; exit 7", remove=True)
        await starter.text(pid, "all of it")
        assert (await starter.exit(pid))["code"] == 7
    await gone(client, pid)


async def test_it_waits_for_all_who_watch(server: TestServer, client: Client) -> None:
    async with connect(server) as one, connect(server) as two:
        pid = await one.run("read x; echo end", remove=True)
        await two.ask("attach", pid=pid)
        await one.send("write", pid=pid, data="\n")
        assert (await one.exit(pid))["code"] == 0
        assert (await two.exit(pid))["code"] == 0
        await two.text(pid, "end")
    await gone(client, pid)


async def test_a_client_that_was_cut_off_finds_it_again(server: TestServer, client: Client) -> None:
    """Nothing shows a server that the last message arrived. A start that is repeated by its key starts
    nothing twice, though the process has ended meanwhile."""
    request = {"processType": "shell", "command": "echo once; exit 3", "pty": False, "remove": True}
    async with connect(server) as starter:
        first = await starter.ask("spawn", **request, key="cut-off")
        await starter.exit(first["pid"])
        starter.vanish()
    async with connect(server) as back:
        again = await back.ask("spawn", **request, key="cut-off")
        assert again["pid"] == first["pid"]
        await back.text(first["pid"], "once")
        assert (await back.exit(first["pid"]))["code"] == 3
    await gone(client, first["pid"])


# Over restarts


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
async def test_names_survive_servers_and_reloads(tmp_path: Path, how: signal.Signals) -> None:
    async with server_in(tmp_path) as server:
        async with connect(server) as client:
            pid = await client.run("read x", name="before")
            done = await client.run("true")
            await client.exit(done)
            await client.ask("rename", pid="before", name="after")
            await client.ask("rename", pid=done, name="done")
            taken = await client.run("read x", name="taken")
        await end_server(server, how)
        async with connect(server) as client:
            assert (await client.ask("inspect", pid="after"))["process"]["pid"] == pid
            assert (await client.ask("inspect", pid="done"))["process"]["pid"] == done
            refused = await client.ask("spawn", processType="shell", name="taken")
            assert (refused["code"], str(taken) in refused["hint"]) == ("name-taken", True)


async def test_what_a_stopped_runtime_leaves(tmp_path: Path) -> None:
    """Records that survive keep pid, name, output and offsets under another server id; new pids are above all
    of them. Where none survives, pids begin anew."""
    async with server_in(tmp_path) as server, connect(server) as client:
        id_before = client.hello["serverId"]
        kept = await client.run("echo kept", name="kept")
        await client.exit(kept)
        removed = await client.run("echo removed", remove=True)
        await client.exit(removed)
        stopped = await client.run("read x", name="stopped")
    async with server_in(tmp_path) as server, connect(server) as client:
        assert client.hello["serverId"] != id_before
        shown = (await client.ask("inspect", pid="kept"))["process"]
        assert (shown["pid"], shown["nextOffset"], shown["exit"]["code"]) == (kept, 5, 0)
        assert (await client.ask("attach", pid="kept", **{"from": 5}))["from"] == 5
        shown = (await client.ask("inspect", pid="stopped"))["process"]
        assert (shown["pid"], shown["exit"]["reason"]) == (stopped, "stopped")
        assert await client.run("true") > stopped
        assert (await client.ask("inspect", pid=removed)).get("code") == "unknown-process"
        # Also of a runtime that has gone, an ended process is renamed and removed.
        await client.ask("rename", pid="kept", name="renamed")
        await client.ask("remove", pid="stopped")
        await no_files(server, stopped)
    async with server_in(tmp_path) as server, connect(server) as client:
        assert (await client.ask("inspect", pid="renamed"))["process"]["pid"] == kept
        for row in (await client.ask("list", all=True))["processes"]:
            await client.ask("remove", pid=row["pid"])
            await no_files(server, row["pid"])
    async with server_in(tmp_path) as server, connect(server) as client:
        assert await client.run("true") == 1000


async def test_a_record_that_was_to_go_goes_after_a_restart_too(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        async with connect(server) as client:
            running = await client.run("read x", remove=True)
        await end_server(server, signal.SIGKILL)
        async with connect(server) as client:
            await client.ask("attach", pid=running)
            await client.send("write", pid=running, data="\n")
            await client.exit(running)
            shown = (await client.ask("inspect", pid=running))["process"]
            assert (shown["status"], shown["remove"]) == ("exited", True)
