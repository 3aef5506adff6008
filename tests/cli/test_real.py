"""The command line against a real runtime: programs, shells, several viewers, and a server that is killed."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mhnos_runtime.client import ExitInfo, Gap, Output, PtySize, connect
from mhnos_runtime.testing import TestServer
from tests.cli.console import Console, command

pytestmark = pytest.mark.timeout(120)

BOTH = 'import sys\nprint("out")\nprint("err", file=sys.stderr)\nsys.exit(int(sys.argv[1]))\n'
READ = "import sys, hashlib\nprint(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())\n"
# In one write: the output of programs is unbuffered, and print writes the end of a line by itself.
WAIT = 'import sys, time\nsys.stdout.write("ready\\n")\ntime.sleep(600)\n'
COUNT = """
import sys, time
for index in range(int(sys.argv[1])):
    print(f"{index:09}", flush=index % 50 == 0)
    if index % 2000 == 0:
        time.sleep(0.02)
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    # The Python of the tests is the one that processes find: a version manager's shim is slow to start.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    async with TestServer(tmp_path, environment={"PATH": path}) as running:
        for name, text in {"both": BOTH, "read": READ, "wait": WAIT, "count": COUNT}.items():
            (running.workspace / f"{name}.py").write_text(text)
        yield running


def env_of(server: TestServer) -> dict[str, str]:
    return {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url, "NO_COLOR": "1"}


async def test_a_script_s_streams_exit_code_and_input(server: TestServer) -> None:
    env = env_of(server)
    assert await command("run", "python", "both.py", "3", env=env) == (3, b"out\n", b"err\n")
    data = os.urandom(5_000_000)
    code, out, _ = await command("run", "-i", "python", "read.py", stdin=data, env=env)
    assert (code, out.decode().strip()) == (0, hashlib.sha256(data).hexdigest())
    code, out, _ = await command("run", "-i", "shell", stdin=b"echo hello; exit 4\n", env=env)
    assert (code, out) == (4, b"hello\n")


async def test_endings_that_are_not_the_program_s_own(server: TestServer) -> None:
    env = env_of(server)
    assert (await command("run", "--timeout", "300ms", "python", "wait.py", env=env))[0] == 124
    assert (await command("run", "python", "missing.py", env=env))[0] == 127
    code, _, err = await command("run", "nosuch", "x", env=env)
    assert (code, err.splitlines()[0]) == (125, b"mhnos-runtime: Unknown process type: nosuch")


async def test_a_background_process_is_listed_written_logged_and_killed(server: TestServer) -> None:
    env = env_of(server)
    code, out, _ = await command("run", "-d", "--name", "w", "python", "wait.py", env=env)
    pid = out.decode().strip()
    async with connect(server.url, server.token) as runtime:
        process = await runtime.attach(int(pid))
        ready = await anext(process.output())
        assert isinstance(ready, Output)
        assert (ready.stream, ready.offset, ready.data) == ("stdout", 0, b"ready\n")
    rows = json.loads((await command("ps", "--json", env=env))[1])
    assert [(row["pid"], row["name"], row["status"]) for row in rows] == [(int(pid), "w", "running")]
    assert (await command("logs", "--tail", "1", pid, env=env))[1] == b"ready\n"
    _, stamped, _ = await command("logs", "-t", "--since", "5m", pid, env=env)
    assert stamped.endswith(b"Z ready\n")
    usage = json.loads((await command("stats", "--json", pid, env=env))[1])
    assert usage[0]["rssBytes"] > 1_000_000
    code, out, _ = await command("kill", pid, env=env)
    assert (code, out.decode()) == (0, f"{pid}\n")
    code, _, err = await command("write", pid, "x", env=env)
    assert (code, b"does not run" in err) == (1, True)
    ended = json.loads((await command("ps", "-a", "--json", env=env))[1])[0]
    assert ended["exit"]["reason"] == "killed"
    assert (await command("logs", "-f", pid, env=env))[:2] == (0, b"ready\n")
    assert (await command("attach", pid, env=env))[:2] == (143, b"ready\n")


async def test_write_types_text_and_files_and_closes(server: TestServer) -> None:
    env = env_of(server)
    pid = (await command("run", "-d", "python", "read.py", env=env))[1].decode().strip()
    data = os.urandom(300_000)
    assert (await command("write", pid, "text", env=env))[0] == 0
    assert (await command("write", "--close", pid, "-", stdin=data, env=env))[0] == 0
    _, out, _ = await command("logs", "-f", pid, env=env)
    assert out.decode().strip() == hashlib.sha256(b"text" + data).hexdigest()


async def test_a_shell_in_a_terminal_with_two_viewers(server: TestServer) -> None:
    env = env_of(server)
    async with Console("run", "-it", "shell", cols=77, rows=22, env=env) as first:
        await first.until_raw()
        first.type(b"stty size; echo first-$((40+2))\r")
        await first.until(b"first-42")
        assert b"22 77" in first.seen
        async with Console("attach", "1000", env=env) as second:
            await second.until(b"first-42")
            second.type(b"echo second-$((1+1))\r")
            await first.until(b"second-2")
            second.type(b"\x10\x11")
            assert await second.exit_code() == 0
            assert second.is_restored()
        first.type(b"sh -c 'echo asleep-$((1+2)); exec sleep 100'\r")
        await first.until(b"asleep-3")
        first.type(b"\x03")
        await first.until(b"^C")
        first.type(b"exit 7\r")
        assert await first.exit_code() == 7
        assert first.is_restored()


async def test_a_program_in_the_sandbox_of_a_process(server: TestServer) -> None:
    env = env_of(server)
    pid = (await command("run", "-d", "-e", "FOO=bar", "python", "wait.py", env=env))[1].decode().strip()
    assert await command("exec", pid, "echo $FOO; echo err >&2; exit 4", env=env) == (4, b"bar\n", b"err\n")
    assert (await command("exec", "-e", "FOO=mine", pid, "echo $FOO", env=env))[1] == b"mine\n"
    assert (await command("exec", pid, "printf", "%s.", "a b", "$FOO", env=env))[1] == b"a b.$FOO."
    assert (await command("exec", "-i", pid, "wc -c", stdin=b"123", env=env))[1].strip() == b"3"
    async with Console("exec", "-it", pid, "bash", cols=71, rows=19, env=env) as console:
        await console.until_raw()
        console.type(b"stty size; echo $FOO-$((40+2)); exit 3\r")
        await console.until(b"bar-42")
        assert b"19 71" in console.seen
        assert await console.exit_code() == 3
        assert console.is_restored()
    _, out, _ = await command("exec", "-d", pid, "exec sleep 600", env=env)
    guest = int(out)
    rows = {row["pid"]: row for row in json.loads((await command("ps", "--json", env=env))[1])}
    assert (rows[guest]["within"], rows[guest]["pty"]) == (int(pid), None)
    await command("kill", pid, env=env)
    code, _, err = await command("exec", pid, "true", env=env)
    assert (code, b"has ended" in err) == (125, True)
    ended = {row["pid"]: row for row in json.loads((await command("ps", "-a", "--json", env=env))[1])}
    assert f"ended with process {pid}" in ended[guest]["exit"]["evidence"]


async def test_the_python_client_runs_within_a_process(server: TestServer) -> None:
    async with connect(server.url, server.token) as runtime:
        host = await runtime.spawn("shell", "exec cat", env={"FOO": "bar"}, pty=False)
        guest = await runtime.spawn("shell", "echo $FOO", within=host, pty=False)
        seen = b"".join([item.data async for item in guest.output() if isinstance(item, Output)])
        assert seen == b"bar\n"
        await host.kill()


async def test_output_is_exact_over_a_killed_server(server: TestServer) -> None:
    """The server is killed twice in the middle of a stream; what arrives is still what was written."""
    lines = 120_000
    want = hashlib.sha256(b"".join(b"%09d\n" % index for index in range(lines))).hexdigest()
    async with connect(server.url, server.token) as runtime:
        process = await runtime.spawn("python", "count.py", args=[str(lines)])
        digest, kills = hashlib.sha256(), [200_000, 600_000]
        async for item in process.output():
            assert isinstance(item, Output), item
            digest.update(item.data)
            if kills and item.next > kills[0]:
                del kills[0]
                os.kill(server.server_pid(), signal.SIGKILL)
        assert digest.hexdigest() == want
        assert (await process.wait()).code == 0
        assert not kills


async def test_the_client_against_the_real_thing(server: TestServer) -> None:
    async with connect(server.url, server.token) as runtime:
        process = await runtime.spawn("shell", pty=PtySize(61, 17))
        await process.write("stty size; exit 3\r")
        seen = b"".join([item.data async for item in process.output() if isinstance(item, Output)])
        assert b"17 61" in seen
        ended = await process.wait()
        assert isinstance(ended, ExitInfo)
        assert (ended.code, ended.reason, ended.output_bytes) == (3, "exit", len(seen))
        files = {"dir/a.bin": b"\xff\x00" * 1000, "dir/b.txt": "grün".encode(), "c": b""}
        assert (await runtime.push(files)).synced == 3
        pulled = await runtime.pull()
        assert {path.lstrip("/"): content for path, content in pulled.items()}.items() >= files.items()
        assert (await runtime.status()).stats.active == 0
        assert await asyncio.wait_for(runtime.ping(), 5) < 5


async def test_check_passes(server: TestServer) -> None:
    before = sorted(server.workspace.iterdir())
    code, out, err = await command("check", "--json", env=env_of(server))
    assert [step for step in json.loads(out) if not step["ok"]] == []
    assert (code, err) == (0, b"")
    assert sorted(server.workspace.iterdir()) == before


@pytest.mark.parametrize("size", [30 << 20, 34 << 20])
async def test_check_passes_however_large_the_workspace_is(server: TestServer, size: int) -> None:
    """34 MB are more than one pull carries: that is for the server to say, and no failure of its own. It took
    what a pull carries for a gigabyte of lists."""
    for name in ("half", "other"):
        (server.workspace / name).write_bytes(b"x" * (size // 2))
    before = sorted(server.workspace.iterdir())
    code, out, err = await command("check", "--json", env=env_of(server))
    steps = json.loads(out)
    assert [step for step in steps if not step["ok"]] == []
    assert (code, err) == (0, b"")
    pulls = [step["seen"] for step in steps if step["step"] == "pull"]
    assert all((" entries, " in seen) == (size < 32 << 20) for seen in pulls), pulls
    assert sorted(server.workspace.iterdir()) == before


async def test_check_leaves_no_record(server: TestServer) -> None:
    assert (await command("check", env=env_of(server)))[0] == 0
    assert (await command("ps", "--all", "--quiet", env=env_of(server)))[1] == b""


async def test_check_without_a_runtime_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as port:
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
    code, out, err = await command("check", url, env={"MHNOS_STATE_DIR": str(tmp_path)})
    assert (code, out) == (1, b"")
    assert err.decode().splitlines() == [
        f"mhnos-runtime: cannot connect to {url}: Connection refused",
        "hint: is it running? `mhnos-runtime serve` starts one here",
    ]


SPEAKS_TWICE = "echo first; sleep 2.5; echo second"


async def test_lines_bear_their_own_times_and_are_found_by_them(server: TestServer) -> None:
    """All bore the first one's, and --since found nothing."""
    env = env_of(server)
    assert (await command("run", "shell", SPEAKS_TWICE, env=env))[1].split() == [b"first", b"second"]
    _, stamped, _ = await command("logs", "-t", "1000", env=env)
    (first, _), (second, _) = (line.split() for line in stamped.decode().splitlines())
    begun, after = (datetime.datetime.fromisoformat(each) for each in (first, second))
    assert 1.5 <= (after - begun).total_seconds() < 60
    for follow in ((), ("-f",)):
        shown = await command("logs", "--since", second, *follow, "1000", env=env)
        assert shown == (0, b"second\n", b"")
    assert (await command("logs", "--until", first, "1000", env=env))[1] == b"first\n"
    async with connect(server.url, server.token) as runtime:
        times = await runtime.handle(1000).timeline()
        assert [offset for offset, _ in times] == [0, 6]
        assert times[0][1] == round(begun.timestamp() * 1000)


async def test_what_is_no_longer_kept_is_named_by_every_verb(server: TestServer) -> None:
    """They began in the middle, without a word."""
    env = env_of(server)
    code, out, _ = await command("run", "shell", "yes 0123456789abcdef | head -c 7000000", env=env)
    assert (code, len(out)) == (0, 7_000_000)
    verbs: list[tuple[str, ...]] = [("logs",), ("logs", "-f"), ("attach",), ("attach", "--no-stdin")]
    for args in verbs:
        code, out, err = await command(*args, "1000", env=env)
        missing = 7_000_000 - len(out)
        assert code == 0
        assert err.decode() == f"[{missing} bytes of output are no longer kept: 0 to {missing}]\n"
    verbs = [("logs", "--tail", "5"), ("logs", "--since", "1h"), ("attach", "--from", "end")]
    for args in verbs:
        assert (await command(*args, "1000", env=env))[2] == b""
    async with connect(server.url, server.token) as runtime:
        process = await runtime.attach(1000)
        assert await anext(process.output()) == Gap(0, missing)


async def test_what_has_ended_is_shown_to_a_terminal_without_its_questions(server: TestServer) -> None:
    """The terminal's answers were typed into the prompt that the command was called from."""
    env = env_of(server)
    asks = r"printf 'a\033[6n\033[c\033]11;?\007\033P+q544e\033\\b\033[?1049h'"
    async with Console("run", "-it", "shell", asks, env=env) as terminal:
        assert await terminal.exit_code() == 0
        assert b"\x1b[6n" in terminal.seen  # then it was between the two
    for args in (("logs",), ("logs", "-f"), ("attach",), ("attach", "--no-stdin")):
        async with Console(*args, "1000", env=env) as terminal:
            assert await terminal.exit_code() == 0
            assert terminal.seen.startswith(b"ab\x1b[?1049h\x1b[?1049l")
            assert not any(question in terminal.seen for question in (b"6n", b"[c", b"]11", b"+q"))


async def test_a_search_finds_lines_of_what_runs_and_what_has_ended(server: TestServer) -> None:
    env = env_of(server)
    assert (await command("run", "python", "both.py", "0", env=env))[0] == 0
    pid = (await command("run", "-d", "python", "wait.py", env=env))[1].decode().strip()
    async with connect(server.url, server.token) as runtime:
        process = await runtime.attach(int(pid))
        assert isinstance(await anext(process.output()), Output)
        found = await runtime.search("READY|err$", ignore_case=True)
        assert [(match.pid, match.stream, match.line) for match in found.matches] == [
            (1000, "stderr", "err"),
            (int(pid), "stdout", "ready"),
        ]
    code, out, err = await command("search", "ready|err", env=env)
    assert (code, err) == (0, b"")
    assert [line.split(b": ")[::2] for line in out.splitlines()] == [
        [b"1000", b"err"],
        [pid.encode(), b"ready"],
    ]
    assert (await command("search", "nosuch", env=env))[0] == 1
    assert (await command("search", "(a+", env=env))[0] == 2
    assert (await command("search", "a", "77", env=env))[0] == 2
