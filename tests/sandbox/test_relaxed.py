"""What level relaxed gives each process for itself, what programs can do with it, and what they cannot.

The refusals here are told in docs/sandbox.md; what must not be reached of others stands in attempts.py."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import stat
from pathlib import Path

import pytest

from mhnos_runtime.sandbox.facts import HostFacts
from tests.sandbox.conftest import require
from tests.sandbox.test_usable import said, serving
from tests.server.client import Client, connect
from tests.server.test_restart import end_server


@pytest.fixture(autouse=True)
def _relaxed(facts: HostFacts) -> None:
    require(facts, "relaxed")


async def temporary_of(client: Client, **options: object) -> tuple[int, Path]:
    """A process that waits for its input to end, and its folder for temporary files."""
    pid = await client.run("echo at-$TMPDIR-; cat", **options)
    text = await client.text(pid, "-\n")
    return pid, Path(text.partition("at-")[2].rpartition("-")[0])


async def gone(path: Path) -> None:
    for _ in range(500):
        if not path.exists():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{path} is still there: {[*path.rglob('*')]}")


async def test_each_process_has_its_own_folder_until_its_end(folder: Path) -> None:
    async with serving(folder, "relaxed") as (_, client):
        first, one = await temporary_of(client)
        second, other = await temporary_of(client)
        assert one != other
        (row, _) = (await client.ask("list"))["processes"]
        for path in (one, other):
            status = path.stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, row["isolation"]["uid"])
        await client.send("kill", pid=first)
        await client.exit(first)
        await gone(one)
        assert other.is_dir()
        await client.send("kill", pid=second)
        await client.exit(second)
        await gone(other)
        parent = one.parent
        assert parent.is_dir()
    assert not parent.exists()


async def test_what_a_process_leaves_goes_and_what_its_links_lead_to_stays(folder: Path) -> None:
    async with serving(folder, "relaxed") as (server, client):
        (server.workspace / "kept").mkdir()
        (server.workspace / "kept" / "file").write_text("x")
        commands = (
            f"cd $TMPDIR && ln -s {server.workspace}/kept a && ln -s / b && mkdir -p c/d/e && mkfifo g && "
            "echo x > c/d/e/f && chmod 0 c/d/e c && pwd"
        )
        path = Path(await said(client, commands))
        assert path.name.startswith("p1")
        await gone(path)
        while any((path.parent / "gone").iterdir()):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)
        assert [each.name for each in path.parent.iterdir()] == ["gone"]
        assert not any((path.parent / "gone").iterdir())
        assert (server.workspace / "kept" / "file").read_text() == "x"


async def test_a_start_that_fails_leaves_no_folder(folder: Path) -> None:
    async with serving(folder, "relaxed") as (server, client):
        program = server.workspace / "broken"
        program.write_text("#!/missing/interpreter\n")
        program.chmod(0o755)
        pid, path = await temporary_of(client)
        answer = await client.ask("spawn", processType="python", command="x.py", options={"cwd": "/missing"})
        assert answer["type"] == "error"
        await client.send("kill", pid=pid)
        await client.exit(pid)
        await gone(path)
        assert [each.name for each in path.parent.iterdir()] == ["gone"]


async def test_folders_outlive_a_reload(folder: Path) -> None:
    async with serving(folder, "relaxed") as (server, client):
        pid, path = await temporary_of(client)
        (path / "file").write_text("x")
        await end_server(server, signal.SIGHUP)
        async with connect(server) as anew:
            assert (path / "file").read_text() == "x"
            _, other = await temporary_of(anew)
            assert other.parent == path.parent
            await anew.ask("attach", pid=pid)
            await anew.send("kill", pid=pid)
            await anew.exit(pid)
            await gone(path)


async def test_a_client_may_name_another_place(folder: Path) -> None:
    async with serving(folder, "relaxed") as (server, client):
        wanted = str(server.workspace / "tmp")
        assert await said(client, "echo $TMPDIR", options={"env": {"TMPDIR": wanted}}) == wanted


async def test_only_the_own_folders_are_there(folder: Path) -> None:
    async with serving(folder, "relaxed") as (_, client):
        for path in ("/tmp", "/var/tmp"):
            assert "Permission denied" in await said(client, f"ls {path} 2>&1")
            assert "ermission denied" in await said(client, f"touch {path}/made 2>&1")
        assert "Permission denied" in await said(client, "ls /dev/shm 2>&1")
        assert "ermission denied" in await said(client, "mkdir /dev/shm/made 2>&1")


async def test_a_process_has_its_terminal_and_can_open_no_other(folder: Path) -> None:
    """Keys that are typed into the one must not be read by the other."""
    async with serving(folder, "relaxed") as (_, client):
        size = {"cols": 80, "rows": 24}
        first = await client.spawn("shell", "bash", pty=size)
        await client.send("write", pid=first, data="echo at-$(tty)-\r")
        other = (await client.text(first, "at-/dev/pts/")).partition("at-/dev/pts/")[2]
        while not other.partition("-")[0].isdigit() or "-" not in other:
            await client.next()
            other = client.output(first).rpartition("at-/dev/pts/")[2]
        path = "/dev/pts/" + other.partition("-")[0]
        second = await client.spawn("shell", "bash", pty=size)
        await client.send(
            "write", pid=second, data="echo own-$((1 + 1)) > $(tty); echo tty-$((1 + 1)) > /dev/tty\r"
        )
        await client.text(second, "own-2")
        await client.text(second, "tty-2")
        await client.send("write", pid=second, data=f"echo x > {path} || echo refused-$((1 + 1))\r")
        await client.text(second, "refused-2")
        await client.send("write", pid=second, data=f"cat < {path} || echo unread-$((1 + 1))\r")
        await client.text(second, "unread-2")


OPEN_TERMINALS = """
import json, os, fcntl, struct
found = {}
for name, attempt in {
    "openpty": lambda: os.openpty(),
    "ptmx": lambda: os.open("/dev/ptmx", os.O_RDWR),
    "pts": lambda: os.open("/dev/pts/ptmx", os.O_RDWR),
}.items():
    try:
        attempt()
        found[name] = "opened"
    except OSError as error:
        found[name] = os.strerror(error.errno)
print(json.dumps(found))
"""


async def test_no_further_terminals_can_be_opened(folder: Path) -> None:
    """tmux, script and expect cannot work here; whoever needs them needs level strict."""
    async with serving(folder, "relaxed") as (server, client):
        (server.workspace / "open.py").write_text(OPEN_TERMINALS)
        pid = await client.spawn("python", "open.py", pty=False)
        await client.exit(pid)
        assert set(json.loads(client.output(pid)).values()) == {"Permission denied"}


SOCKETS = """
import json, socket
made, pairs = [], []
for family in range(64):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind)
            made.append(family)
        except OSError:
            pass
        try:
            socket.socketpair(family, kind)
            pairs.append(family)
        except OSError:
            pass
print(json.dumps([sorted(set(made)), sorted(set(pairs))]))
"""


@pytest.mark.parametrize(("network", "families"), [("none", {1}), ("host", {1, 2, 10, 16})])
async def test_sockets_are_of_few_families(folder: Path, network: str, families: set[int]) -> None:
    async with serving(folder, "relaxed", "--network", network) as (server, client):
        (server.workspace / "sockets.py").write_text(SOCKETS)
        pid = await client.spawn("python", "sockets.py", pty=False)
        await client.exit(pid)
        made, pairs = json.loads(client.output(pid))
        assert set(made) <= families
        assert 1 in made
        assert pairs == [1]


ONESELF = """
import os, resource, threading
os.nice(1)
os.setpriority(os.PRIO_PROCESS, 0, 2)
os.sched_setaffinity(0, os.sched_getaffinity(0))
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
assert resource.prlimit(0, resource.RLIMIT_NOFILE) == (64, 64)
for change in (
    lambda: os.setpriority(os.PRIO_PROCESS, os.getpid(), 5),
    lambda: os.sched_setaffinity(threading.get_native_id(), os.sched_getaffinity(0)),
    lambda: resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE),
    lambda: os.setpriority(os.PRIO_PGRP, 0, 5),
):
    try:
        change()
    except PermissionError:
        continue
    raise SystemExit("was not refused")
print("fine")
"""


async def test_a_process_changes_itself_as_0_and_by_no_other_number(folder: Path) -> None:
    async with serving(folder, "relaxed") as (server, client):
        (server.workspace / "oneself.py").write_text(ONESELF)
        pid = await client.spawn("python", "oneself.py", pty=False)
        await client.exit(pid)
        assert client.output(pid).strip() == "fine"


PROGRAMS = {
    "mktemp": "f=$(mktemp) && echo x > $f && test $(dirname $f) = $TMPDIR",
    "bash": 'bash -c "cat <<END\n$(yes | head -c 200000)\nEND" | wc -c',
    "nice": "nice -n 3 true",
    "taskset": "taskset 1 true",
    "ionice": "ionice -c 3 true",
    "chrt": "chrt --other 0 true",
    "prlimit": "prlimit --nofile=100 true",
    "setsid": "setsid true",
    "sort": "sort -S 16K --parallel=2 /etc/services | tail -1",
    "gcc": "echo 'int main(void) { return 0; }' > a.c && gcc a.c -o a && ./a",
    "sqlite3": "sqlite3 x.db 'create table t(a); insert into t values (1); vacuum'",
    "perl": "perl -MFile::Temp -e 'File::Temp->new'",
    "vim": "vim -es -u NONE -c 'put =1' -c 'wq' v.txt && grep -q 1 v.txt",
    "npm": "mkdir -p n && cd n && npm init -y > /dev/null",
    "node": "node -e \"const fs = require('fs'), os = require('os'); os.setPriority(3); "
    "fs.mkdtempSync(os.tmpdir() + '/x-'); new (require('worker_threads').Worker)('1', {eval: true})\"",
    "java": "echo 'class T { public static void main(String[] a) throws Exception { "
    'java.io.File.createTempFile("abc", ""); } }\' > T.java && java -Djava.io.tmpdir="$TMPDIR" T.java',
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_common_programs_work(folder: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not on this machine")
    async with serving(folder, "relaxed", "--max-memory", "2g") as (_, client):
        pid = await client.run(PROGRAMS[name])
        assert (await client.exit(pid))["code"] == 0, client.output(pid)


MULTIPROCESSING = """
import multiprocessing
from multiprocessing import shared_memory
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(sum(pool.map(abs, range(-9, 1))))
    memory = shared_memory.SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()
"""


async def test_shared_memory_and_semaphores_work(folder: Path) -> None:
    async with serving(folder, "relaxed") as (server, client):
        (server.workspace / "many.py").write_text(MULTIPROCESSING)
        pid = await client.spawn("python", "many.py", pty=False)
        assert (await client.exit(pid))["code"] == 0, client.output(pid)
        assert client.output(pid).strip() == "45"
