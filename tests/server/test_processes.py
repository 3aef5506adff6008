"""What clients of 1.0 rely on without saying so, and where their first server failed: from start to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import OUTPUT, Client, connect

pytestmark = pytest.mark.asyncio(loop_scope="module")

Script = Callable[[str], str]


def alive(os_pid: int) -> bool:
    try:
        return Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Starting


async def test_spawned_comes_before_any_frame_of_the_process(client: Client) -> None:
    """Also for one that has written and ended by the time it is answered."""
    for _ in range(10):
        await client.send("spawn", processType="shell", command="echo hi", id="s")
    pids: list[int] = []
    ended = 0
    while ended < 10:
        message = await client.next()
        if message["type"] == "spawned":
            pids.append(message["pid"])
        elif "pid" in message:
            assert message["pid"] in pids
            ended += message["type"] == "exit"
    assert pids == list(range(pids[0], pids[0] + 10))


async def test_the_client_that_spawned_is_attached(client: Client) -> None:
    pid = await client.run("echo out; echo err >&2; exit 4")
    exit_ = await client.exit(pid)
    assert (exit_["code"], exit_["signal"]) == (4, None)
    assert isinstance(exit_["runtime"], int)
    assert {(m["type"], m["data"]) for m in client.seen if m["type"] in OUTPUT} == {
        ("stdout", "out\n"),
        ("stderr", "err\n"),
    }
    assert client.seen[-1] is exit_


async def test_a_program_that_cannot_be_started_is_an_error_and_no_process(
    client: Client, server: TestServer
) -> None:
    """The first server answered `spawned`, and the process stayed "running" for ever."""
    before = await client.ask("list")
    answer = await client.ask("spawn", processType="python", command="/nowhere.py", options={"cwd": "/"})
    assert (answer["type"], answer["code"]) == ("error", "not-found")
    assert "nowhere.py" in answer["error"]
    (server.workspace / "plain").write_text("x")
    answer = await client.ask("spawn", processType="node", command="/plain/x.js", options={"cwd": "/"})
    assert answer["type"] == "error"
    after = await client.ask("list")
    assert after["stats"] == before["stats"]
    assert len(after["processes"]) == len(before["processes"])


async def test_kinds_of_1_0(client: Client, script: Script, server: TestServer) -> None:
    (server.workspace / "app.js").write_text("console.log('node', process.argv.slice(2), process.execArgv)")
    pid = await client.spawn("node", "app.js", "a", "b", options={"cwd": "/"})
    await client.exit(pid)
    assert "node [ 'a', 'b' ] [ '--max-old-space-size=1024' ]" in client.output(pid)
    pid = await client.spawn("python", script("import sys; print(sys.argv[1:], sys.stdin.isatty())"), "a b")
    await client.exit(pid)
    assert client.output(pid) == "['a b'] False\n"


async def test_a_shell_is_interactive_and_on_a_terminal_of_100_by_30(client: Client) -> None:
    pid = await client.spawn("shell")
    await client.send("write", pid=pid, data="stty size; echo $TERM $-\r")
    found = await client.text(pid, "xterm-256color ")
    assert "30 100\r\n" in found
    await client.send("resize", pid=pid, cols=80, rows=24)
    await client.send("write", pid=pid, data="until [ \"$(stty size)\" = '24 80' ]; do :; done; stty size\r")
    await client.text(pid, "24 80\r\n")
    await client.ask("kill", pid=pid)


UNDOES = """
import signal, sys, termios
before = termios.tcgetwinsize(0)
undone = []
def resized(*_):
    if not undone:
        undone.append(termios.tcgetwinsize(0))
        termios.tcsetwinsize(0, before)
signal.signal(signal.SIGWINCH, resized)
print("waiting", flush=True)
while not undone or termios.tcgetwinsize(0) != undone[0]:
    signal.sigtimedwait([], 0.01)
print("now", *termios.tcgetwinsize(0), flush=True)
"""


async def test_a_size_that_the_terminal_undoes_is_set_again(client: Client, script: Script) -> None:
    """Readline sets the size that it has read just before, and so a new one was sometimes lost for good."""
    pid = await client.spawn("python", script(UNDOES), pty={"cols": 100, "rows": 30})
    await client.text(pid, "waiting")
    await client.send("resize", pid=pid, cols=80, rows=24)
    await client.text(pid, "now 24 80")


async def test_environment_holds_what_is_named_and_nothing_else(client: Client, server: TestServer) -> None:
    pid = await client.spawn(
        "shell", "env; exit", pty=False, options={"env": {"MINE": "1 2", "TERM": "dumb"}}
    )
    await client.exit(pid)
    found = dict(line.split("=", 1) for line in client.output(pid).splitlines())
    assert (found["MINE"], found["TERM"], found["USER"]) == ("1 2", "dumb", "mhnos")
    assert found["HOME"] == str(server.workspace)
    may = {"PATH", "HOME", "USER", "TERM", "LANG", "LC_ALL", "TZ", "DEBUG", "MINE", "PYTHONUNBUFFERED"}
    assert set(found) <= may | {"PWD", "SHLVL", "_", "OLDPWD"}


# Working directories and paths of the client's own disk


@pytest.fixture
def demos(server: TestServer) -> Path:
    path = server.workspace / "demos"
    path.mkdir(exist_ok=True)
    (path / "hello.py").write_text("import os; print('hello from', os.getcwd())")
    return path


@pytest.mark.parametrize("cwd", ["/", "", "/workspace", None])
async def test_cwd_of_the_root_is_the_workspace(client: Client, server: TestServer, cwd: str | None) -> None:
    """Taken literally it would be the root of the host."""
    pid = await client.run("pwd", options={} if cwd is None else {"cwd": cwd})
    await client.exit(pid)
    assert client.output(pid) == f"{server.workspace}\n"


@pytest.mark.parametrize("cwd", ["/demos", "demos", "/workspace/demos", "/demos/", "/demos/../demos/."])
async def test_cwd_is_a_folder_in_the_workspace(client: Client, demos: Path, cwd: str) -> None:
    pid = await client.run("pwd", options={"cwd": cwd})
    await client.exit(pid)
    assert client.output(pid) == f"{demos}\n"


@pytest.mark.parametrize(
    ("command", "cwd"),
    [("hello.py", "/demos"), ("/demos/hello.py", "/"), ("demos/hello.py", "/"), ("./hello.py", "/demos")],
)
async def test_scripts_are_relative_to_cwd_or_paths_of_the_clients_disk(
    client: Client, demos: Path, command: str, cwd: str
) -> None:
    pid = await client.spawn("python", command, options={"cwd": cwd})
    await client.exit(pid)
    assert client.output(pid).startswith("hello from ")


async def test_a_shell_whose_cwd_does_not_exist_starts_in_the_root_and_says_so(
    client: Client, server: TestServer
) -> None:
    pid = await client.spawn("shell", options={"cwd": "/gone"})
    await client.send("write", pid=pid, data="pwd\r")
    found = await client.text(pid, f"{server.workspace}\r\n")
    assert "/gone does not exist" in found
    await client.ask("kill", pid=pid)


async def test_other_kinds_refuse_a_cwd_that_does_not_exist(client: Client, script: Script) -> None:
    answer = await client.ask("spawn", processType="python", command=script(""), options={"cwd": "/gone"})
    assert (answer["type"], answer["code"]) == ("error", "not-found")
    assert "/gone" in answer["error"]


OUTSIDE = ["..", "/../..", "/link", "/link/x", "/link/..", "/chain", "/sibling-link"]


@pytest.mark.parametrize("cwd", OUTSIDE)
@pytest.mark.parametrize("kind", ["python", "shell"])
async def test_no_path_leads_out(client: Client, server: TestServer, cwd: str, kind: str) -> None:
    """Checks by string prefix let a sibling folder and every kind of symlink out."""
    root = server.workspace
    sibling = root.parent / f"{root.name}-secret"
    sibling.mkdir(exist_ok=True)
    (sibling / "x").mkdir(exist_ok=True)
    (sibling / "s.py").write_text("print('out')")
    for name, target in {"link": str(sibling), "chain": "link", "sibling-link": f"../{sibling.name}"}.items():
        if not (root / name).is_symlink():
            (root / name).symlink_to(target)
    await client.send(
        "spawn",
        processType=kind,
        command="-c" if kind == "python" else "pwd",
        args=["import os; print(os.getcwd())"],
        options={"cwd": cwd},
        id=1,
    )
    answer = await client.next()
    if answer["type"] == "spawned":
        await client.exit(answer["pid"])
        assert client.output(answer["pid"]).split()[-1] == str(root)
    else:
        assert answer["type"] == "error"
    answer = await client.ask("spawn", processType="python", command="/link/s.py")
    assert (answer["type"], answer["code"]) == ("error", "outside-workspace")


# Attaching


async def test_attach_replays_what_was_written_and_later_output_comes_once(client: Client) -> None:
    """Clients throw output away until they have attached, although `spawn` attached them."""
    pid = await client.run("echo one; read x; echo two")
    await client.text(pid, "one\n")
    for _ in range(2):
        start = len(client.seen)
        answer = await client.ask("attach", pid=pid)
        assert (answer["type"], answer["pid"], answer["status"]) == ("attached", pid, "running")
        replayed = [m for m in client.seen[start:] if m["type"] == "stdout"]
        assert "".join(m["data"] for m in replayed) == "one\n"
        assert all(m["timestamp"] > 1.7e12 for m in replayed)
        assert client.seen[-1] is answer
    start = len(client.seen)
    await client.send("write", pid=pid, data="\r")
    await client.exit(pid)
    live = [m for m in client.seen[start:] if m["type"] == "stdout"]
    assert [(m["data"], "timestamp" in m) for m in live] == [("two\n", False)]


async def test_a_late_client_gets_everything(client: Client, other: Client) -> None:
    pid = await client.run("echo one; echo two >&2; read x; exit 5")
    await client.text(pid, "two\n")
    await other.ask("attach", pid=pid)
    assert sorted(other.output(pid).split()) == ["one", "two"]
    await client.send("write", pid=pid, data="\r")
    assert (await other.exit(pid))["code"] == 5
    assert (await client.exit(pid))["code"] == 5


async def test_attach_to_an_ended_process_brings_output_answer_and_exit(
    client: Client, other: Client
) -> None:
    pid = await client.run("echo late; exit 6")
    await client.exit(pid)
    await other.send("attach", pid=pid, id="a")
    kinds = [(await other.next())["type"] for _ in range(3)]
    assert kinds == ["stdout", "attached", "exit"]
    assert other.seen[-2]["status"] == "exited"
    assert other.seen[-1]["code"] == 6


async def test_detach_ends_the_output_and_nothing_else(client: Client, other: Client) -> None:
    pid = await client.run("while read x; do echo got $x; done")
    await other.ask("attach", pid=pid)
    await client.ask("detach", pid=pid)
    start = len(client.seen)
    await client.send("write", pid=pid, data="abc\r")
    await other.text(pid, "got abc\n")
    await client.quiet()
    assert client.output(pid, start) == ""
    await client.ask("kill", pid=pid)


async def test_processes_live_on_when_their_client_closes(server: TestServer, client: Client) -> None:
    async with connect(server) as first:
        pid = await first.run("while read x; do echo got $x; done")
    await client.ask("attach", pid=pid)
    await client.send("write", pid=pid, data="still here\r")
    await client.text(pid, "got still here\n")
    await client.ask("kill", pid=pid)


# Typing


async def test_enter_is_a_carriage_return_on_pipes_too(client: Client, script: Script) -> None:
    """Python's input() waits for a line feed."""
    pid = await client.spawn(
        "python", script("print(repr(input()), repr(input()), repr(input()), flush=True)")
    )
    for data in ["a", "b\r", "c\r", "\nd\n"]:
        await client.send("write", pid=pid, data=data)
    await client.exit(pid)
    assert client.output(pid) == "'ab' 'c' 'd'\n"


async def test_a_terminal_gets_what_was_typed(client: Client) -> None:
    pid = await client.spawn("shell", "stty raw -echo; echo ready; head -c 6 | od -An -c")
    await client.text(pid, "ready")
    await client.send("write", pid=pid, data="a\rb\nc\r")
    await client.exit(pid)
    assert client.output(pid).split()[1:] == ["a", "\\r", "b", "\\n", "c", "\\r"]


async def test_writing_to_a_process_that_closed_its_input_harms_nobody(
    client: Client, other: Client, script: Script
) -> None:
    """EPIPE took the whole first server down."""
    pid = await client.spawn(
        "python", script("import os, time\nos.close(0)\nprint('closed', flush=True)\ntime.sleep(60)")
    )
    await client.text(pid, "closed")
    for _ in range(3):
        await client.send("write", pid=pid, data="x\r")
    error = await client.until("error")
    assert (error["code"], error["pid"]) == ("input-closed", pid)
    await other.ask("ping")
    await client.ask("kill", pid=pid)


async def test_resize_of_a_process_on_pipes_is_ignored(client: Client) -> None:
    pid = await client.run("read x")
    await client.send("resize", pid=pid, cols=80, rows=24)
    await client.quiet()
    assert not [m for m in client.seen if m["type"] == "error"]
    await client.ask("kill", pid=pid)


@pytest.mark.parametrize(
    "size",
    [
        {"cols": 0, "rows": 24},
        {"cols": 80, "rows": 100000},
        {"cols": "80", "rows": 24},
        {"cols": 80.5, "rows": 24},
        {"cols": -1, "rows": 24},
        {"rows": 24},
    ],
)
async def test_bad_numbers_in_resize_are_an_error(client: Client, size: dict[str, object]) -> None:
    pid = await client.spawn("shell", "stty size; read x; stty size")
    await client.text(pid, "30 100")
    answer = await client.ask("resize", pid=pid, **size)
    assert (answer["type"], answer["code"]) == ("error", "invalid-argument")
    await client.send("write", pid=pid, data="\r")
    await client.exit(pid)
    assert client.output(pid).count("30 100") == 2


# Ending


async def test_exit_comes_before_killed(client: Client, other: Client) -> None:
    """`kill` forgets the pid when `killed` arrives; an exit after it would be for nobody."""
    pid = await client.run("sleep 60")
    await other.ask("attach", pid=pid)
    await client.send("kill", pid=pid, id="k")
    while (message := await client.next())["type"] != "killed":
        pass
    assert [m["type"] for m in client.seen[-2:]] == ["exit", "killed"]
    assert (message["id"], client.seen[-2]["signal"], client.seen[-2]["reason"]) == ("k", "SIGTERM", "killed")
    assert (await other.exit(pid))["signal"] == "SIGTERM"


async def test_an_interactive_bash_ignores_sigterm_and_is_ended_all_the_same(client: Client) -> None:
    pid = await client.spawn("shell", "bash")
    await client.send("write", pid=pid, data="echo $((40+2)) ready\r")
    await client.text(pid, "42 ready")
    await client.ask("kill", pid=pid)
    assert pid not in [row["pid"] for row in (await client.ask("list"))["processes"]]


async def test_kill_ends_the_whole_tree(client: Client, script: Script) -> None:
    """Also what made itself a session of its own and ignores SIGTERM and SIGHUP."""
    source = """
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "60"])
deaf = "trap '' TERM HUP; echo up; while :; do sleep 60; done"
apart = subprocess.Popen(["sh", "-c", deaf], start_new_session=True, stdout=subprocess.PIPE)
apart.stdout.readline()
print("pids", child.pid, apart.pid, os.getpid(), flush=True)
time.sleep(60)
"""
    pid = await client.spawn("python", script(source))
    found = await client.text(pid, "\n")
    os_pids = [int(word) for word in found.split()[1:]]
    assert all(map(alive, os_pids))
    await client.ask("kill", pid=pid)
    assert not any(map(alive, os_pids))
    assert [m["signal"] for m in client.seen if m["type"] == "exit"] == ["SIGKILL"]


async def test_a_signal_that_does_not_end_is_answered_when_it_is_sent(client: Client, script: Script) -> None:
    source = """
import signal, time
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print("up", flush=True)
while True: time.sleep(60)
"""
    pid = await client.spawn("python", script(source))
    await client.text(pid, "up")
    assert (await client.ask("kill", pid=pid, signal="SIGINT"))["type"] == "killed"
    await client.text(pid, "interrupted")
    await client.ask("kill", pid=pid, signal="SIGKILL")
    assert client.seen[-2]["signal"] == "SIGKILL"


async def test_ctrl_c_interrupts_what_runs_in_a_shell(client: Client) -> None:
    pid = await client.spawn("shell", "bash", "--norc")
    # The program says itself that it has the terminal: before, the shell may take the interrupt and go on.
    await client.send("write", pid=pid, data="sh -c 'echo $((1+1))up; exec sleep 60'\r")
    await client.text(pid, "2up")
    start = len(client.seen)
    await client.send("write", pid=pid, data="\x03")
    # What is typed before the prompt is there again is for the shell to keep or to drop.
    await client.text(pid, "bash-", start)
    await client.send("write", pid=pid, data="echo $((3+1))back\r")
    await client.text(pid, "4back", start)
    await client.ask("kill", pid=pid)


async def test_killing_twice_is_answered_twice(client: Client) -> None:
    pid = await client.run("trap '' TERM; echo up; while :; do sleep 0.05; done")
    await client.text(pid, "up")
    await client.send("kill", pid=pid, id=1)
    await client.send("kill", pid=pid, id=2)
    await client.until("killed", id=1)
    await client.until("killed", id=2)
    assert (await client.ask("kill", pid=pid))["type"] == "killed"


async def test_a_client_that_leaves_while_it_waits_for_killed_harms_nobody(
    server: TestServer, client: Client
) -> None:
    async with connect(server) as first:
        pid = await first.run("trap '' TERM; echo up; while :; do sleep 0.05; done")
        await first.text(pid, "up")
        await client.ask("attach", pid=pid)
        await first.send("kill", pid=pid, id=1)
    assert (await client.exit(pid))["signal"] == "SIGKILL"


async def test_a_wish_for_a_time_out_is_kept(client: Client) -> None:
    pid = await client.run("sleep 60", options={"timeout": 50})
    exit_ = await client.exit(pid)
    assert (exit_["reason"], exit_["signal"]) == ("timeout", "SIGTERM")
    assert 40 <= exit_["runtime"] < 20_000
    pid = await client.run("sleep 0.1", options={"timeout": 0})
    assert (await client.exit(pid))["reason"] == "exit"


async def test_status_answers_at_once_while_a_process_floods(client: Client, other: Client) -> None:
    """It took 1.8 s in the first server."""
    pid = await client.spawn("shell", "yes")
    flood = asyncio.create_task(_drain(client, pid))
    try:
        loop = asyncio.get_running_loop()
        took: list[float] = []
        for _ in range(20):
            before = loop.time()
            await other.ask("status")
            took.append(loop.time() - before)
        assert sorted(took)[10] < 0.2
    finally:
        await other.ask("kill", pid=pid)
        await flood


async def _drain(client: Client, pid: int) -> None:
    await client.exit(pid)


@pytest.mark.parametrize("pty", [True, False])
async def test_processes_inherit_no_descriptors(client: Client, pty: bool) -> None:
    """With the listening socket a process could serve in this server's place, and read tokens."""
    pid = await client.run("ls -l /proc/self/fd", pty=pty)
    await client.exit(pid)
    numbers = {line.split()[8] for line in client.output(pid).splitlines() if "->" in line}
    assert numbers <= {"0", "1", "2", "3"}
