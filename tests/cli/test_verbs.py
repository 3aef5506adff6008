"""Verbs as somebody types them who uses docker every day, against a real runtime."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.cli.console import WAIT_S, Console, command

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

Env = dict[str, str]
#: Runs until it is told to end, and says that it can be told.
SERVING = "echo serving; exec sleep 600"
#: A program that does not obey.
STUBBORN = "trap '' TERM HUP; echo serving; while :; do sleep 0.05; done"


async def told(*args: str, env: Env) -> str:
    """What a command that succeeds prints."""
    code, out, err = await command(*args, env=env)
    assert code == 0, err.decode()
    return out.decode()


async def started(*args: str, env: Env) -> str:
    """The pid of a process in the background."""
    return (await told("run", "-d", *args, env=env)).strip()


async def serving(*args: str, env: Env, script: str = SERVING) -> str:
    """As `started`, when the program has come so far that it handles signals."""
    pid = await started(*args, "shell", script, env=env)
    async with asyncio.timeout(WAIT_S):
        while "serving" not in await told("logs", pid, env=env):
            pass
    return pid


async def shown(pid: str, env: Env) -> dict[str, object]:
    [row] = json.loads(await told("inspect", pid, env=env))
    assert isinstance(row, dict)
    return row


# Names


async def test_a_name_stands_wherever_a_pid_does(env: Env) -> None:
    pid = await serving("--name", "everywhere", env=env)
    assert (await told("logs", "everywhere", env=env)).split() == ["serving"]
    assert (await shown("everywhere", env))["pid"] == int(pid)
    assert json.loads(await told("stats", "--json", "everywhere", env=env))[0]["pid"] == int(pid)
    await told("write", "--close", "everywhere", "", env=env)
    assert await told("port", "everywhere", env=env) == ""
    assert (await command("credentials", "everywhere", env=env))[2] == (
        b"mhnos-runtime: process everywhere has no token\n"
    )
    await told("rename", "everywhere", "elsewhere", env=env)
    attached = asyncio.create_task(command("attach", "--no-stdin", "elsewhere", env=env))
    assert await told("kill", "elsewhere", env=env) == "elsewhere\n"
    assert (await attached)[0] == 143
    assert await told("wait", "elsewhere", env=env) == "143\n"
    assert await told("rm", "elsewhere", env=env) == "elsewhere\n"


async def test_what_is_no_name_is_refused_before_anything_is_asked(env: Env) -> None:
    nowhere = env | {"MHNOS_URL": "http://127.0.0.1:1"}
    for args in (
        ("kill", "No_Name"),
        ("rename", "1000", "7"),
        ("run", "--name", "-x-", "shell", "true"),
        ("run", "--name", "x" * 41, "shell", "true"),
    ):
        code, _, err = await command(*args, env=nowhere)
        assert (code, b"Invalid value" in err) == (2, True), err
    assert b"1 to 40 of a-z, 0-9 and -" in err


async def test_a_name_that_is_taken_is_refused_with_the_next_step(env: Env) -> None:
    pid = await started("--name", "taken", "shell", "sleep 600", env=env)
    code, _, err = await command("run", "--name", "taken", "shell", "true", env=env)
    assert (code, b"the name taken is taken" in err, pid.encode() in err) == (125, True, True)
    await told("kill", "taken", env=env)


# Ends


@pytest.mark.parametrize(
    "args", [["-9"], ["-KILL"], ["-SIGKILL"], ["-kill"], ["-s", "KILL"], ["--signal", "9"], ["--signal=KILL"]]
)
async def test_a_signal_is_written_as_kill_and_docker_take_it(args: list[str], env: Env) -> None:
    pid = await serving(env=env, script=STUBBORN)
    assert await told("kill", *args, pid, env=env) == f"{pid}\n"
    assert await told("wait", pid, env=env) == "137\n"


async def test_what_is_no_signal_is_refused(env: Env) -> None:
    for arg in ("-77", "-NOSUCH", "-x"):
        code, _, err = await command("kill", arg, "1", env=env)
        assert (code, b"No such option" in err) == (2, True)


async def test_kill_says_which_process_is_not_there_and_ends_the_others(env: Env) -> None:
    first, second = await serving(env=env), await serving(env=env)
    code, out, err = await command("kill", first, "999999", second, env=env)
    assert (code, out.decode().split()) == (1, [first, second])
    assert b"999999" in err
    code, _, err = await command("kill", first, env=env)
    assert (code, f"process {first} does not run".encode() in err) == (1, True)


async def test_a_signal_that_ends_nothing_is_sent_and_not_waited_for(env: Env) -> None:
    pid = await serving(env=env, script="trap 'echo got it' USR1; echo serving; while :; do sleep 0.05; done")
    assert await told("kill", "-USR1", pid, env=env) == f"{pid}\n"
    async with asyncio.timeout(WAIT_S):
        while "got it" not in await told("logs", pid, env=env):
            pass
    await told("kill", "-9", pid, env=env)


async def test_stop_gives_a_program_time_and_then_ends_it(env: Env) -> None:
    obedient = await serving(env=env, script="trap 'exit 5' TERM; echo serving; while :; do sleep 0.05; done")
    stubborn, ended = await serving(env=env, script=STUBBORN), await started("shell", "exit 4", env=env)
    await told("wait", ended, env=env)
    out = await told("stop", "-t", "0.5", obedient, stubborn, ended, env=env)
    assert out.split() == [obedient, stubborn, ended]
    assert (await told("wait", obedient, stubborn, ended, env=env)).split() == ["5", "137", "4"]


async def test_stop_ends_a_shell_that_talks_to_a_person(env: Env) -> None:
    """An interactive shell ignores SIGTERM."""
    pids = [await started("-t", "shell", env=env) for _ in range(2)]
    assert (await told("stop", "-t", "600", pids[0], env=env)).strip() == pids[0]
    assert (await told("stop", pids[1], env=env)).strip() == pids[1]


async def test_wait_prints_codes_in_the_order_of_its_arguments(env: Env) -> None:
    late, early = await serving(env=env), await started("shell", "exit 3", env=env)
    waiting = asyncio.create_task(told("wait", late, early, env=env))
    await told("wait", early, env=env)
    assert not waiting.done()
    await told("kill", "-INT", late, env=env)
    assert (await waiting).split() == ["130", "3"]
    assert (await command("wait", "999999", env=env))[0] == 1


async def test_wait_goes_on_after_a_killed_server(env: Env, shared: TestServer) -> None:
    early, pid = await started("shell", "exit 33", env=env), await serving(env=env)
    async with Console("wait", early, pid, env=env) as terminal:
        await terminal.until(b"33")
        os.kill(shared.server_pid(), signal.SIGKILL)
        await terminal.until(b"[resumed]")
        await told("kill", "-9", pid, env=env)
        assert await terminal.exit_code() == 0
        await terminal.until(b"137")
        assert terminal.seen.count(b"33\r\n") == 1


# Records


async def test_rm_removes_what_has_ended_and_with_force_what_runs(env: Env) -> None:
    pid = await serving(env=env)
    code, _, err = await command("rm", pid, env=env)
    assert (code, f"`mhnos-runtime rm -f {pid}` kills it first".encode() in err) == (1, True)
    assert await told("rm", "-f", pid, "999999", env=env) == f"{pid}\n"
    assert (await command("logs", pid, env=env))[0] == 1
    assert (await command("rm", pid, env=env))[0] == 1


async def test_prune_says_how_much_and_asks_on_a_terminal(env: Env) -> None:
    running = await serving(env=env)
    await told("prune", "-f", env=env)
    for _ in range(2):
        await told("wait", await started("shell", "head -c 2048 /dev/zero", env=env), env=env)
    code, _, err = await command("prune", env=env)
    assert code == 1
    assert b"2 ended processes with 4.0 KiB of output would be removed" in err
    for answer, code in ((b"n\r", 1), (b"y\r", 0)):
        async with Console("prune", env=env) as terminal:
            await terminal.until(b"Remove 2 ended processes with 4.0 KiB of output?")
            terminal.type(answer)
            assert await terminal.exit_code() == code
    assert await told("prune", "-f", env=env) == "no process has ended since the last time\n"
    assert (await told("ps", "-aq", env=env)).split() == [running]
    await told("rm", "-f", running, env=env)


@pytest.mark.parametrize("detach", [[], ["-d"]], ids=["attached", "detached"])
async def test_with_rm_the_record_goes_at_the_end(detach: list[str], env: Env) -> None:
    """As docker's; it said nothing with -d, and ended the process that it had started."""
    assert (await command("run", "--rm", *detach, "--name", "gone", "shell", "exit 6", env=env))[0] == (
        0 if detach else 6
    )
    async with asyncio.timeout(WAIT_S):
        while "gone" in await told("ps", "-a", env=env):
            pass


# Looking


async def test_inspect_shows_each_and_says_which_is_not_there(env: Env) -> None:
    pid = await serving("--timeout", "5m", env=env)
    code, out, err = await command("inspect", pid, "999999", env=env)
    [row] = json.loads(out)
    assert (code, row["pid"], row["timeoutMs"], b"999999" in err) == (1, int(pid), 300_000, True)
    await told("rm", "-f", pid, env=env)


PORT = """
import sys, time
print("port", sys.argv[1], flush=True)
time.sleep(600)
"""


async def test_port_of_a_process_without_any(env: Env) -> None:
    pid = await serving(env=env)
    code, _, err = await command("port", pid, "http", env=env)
    assert (code, b"port http" in err, b"it has none" in err) == (1, True, True)
    await told("kill", "-9", pid, env=env)
    code, _, err = await command("port", pid, env=env)
    assert (code, b"does not run" in err) == (1, True)


async def test_ps_finds_by_kind_name_and_status(env: Env, shared: TestServer) -> None:
    (shared.workspace / "sleep.py").write_text("import time\ntime.sleep(600)\n")
    shell = await started("--name", "find-me", "shell", "sleep 600", env=env)
    python = await started("--name", "me-too", "python", "sleep.py", env=env)
    ended = await started("--name", "found", "shell", "true", env=env)
    await told("wait", ended, env=env)

    async def found(*filters: str) -> list[str]:
        return (await told("ps", "-aq", *(f"--filter={each}" for each in filters), env=env)).split()

    assert await found("name=me") == [shell, python]
    assert await found("name=me", "kind=python") == [python]
    assert await found("status=exited", "name=found") == [ended]
    assert (await command("ps", "-f", "colour=red", env=env))[0] == 2
    await told("rm", "-f", shell, python, ended, env=env)


async def test_stats_once_also_where_nothing_runs(env: Env) -> None:
    pid = await serving("--name", "measured", env=env)
    head, row = (await told("stats", "measured", env=env)).splitlines()
    assert head.split()[:4] == ["PID", "NAME", "KIND", "CPU"]
    assert row.split()[:3] == [pid, "measured", "shell"]
    assert (await told("top", "measured", env=env)).splitlines()[1].split()[0] == pid
    await told("stop", pid, env=env)
    code, out, err = await command("stats", "measured", env=env)
    assert (code, out, b"process measured does not run" in err) == (1, b"", True), "once an empty table"
    await told("rm", "-f", pid, env=env)


async def test_events_are_lines_until_ctrl_c(env: Env) -> None:
    async with Console("events", env=env) as terminal, Console("events", "--json", env=env) as as_json:
        # The subscription is under way: an event that is told says that it stands.
        async with asyncio.timeout(WAIT_S):
            while b"process started" not in terminal.seen or b"started" not in as_json.seen:
                await told("run", "--rm", "shell", "true", env=env)
        pid = await started("--name", "eventful", "shell", "exit 3", env=env)
        ended = f"process ended {pid} (name=eventful, kind=shell, command=exit 3, exit=3)".encode()
        await terminal.until(ended)
        await as_json.until(b'"name":"eventful"')
        os.kill(terminal.pid, signal.SIGINT)
        as_json.type(b"\x03")
        assert (await terminal.exit_code(), await as_json.exit_code()) == (0, 0)
        assert b"Traceback" not in terminal.seen + as_json.seen


async def test_events_go_on_after_a_killed_server(env: Env, shared: TestServer) -> None:
    async with Console("events", env=env) as terminal:
        async with asyncio.timeout(WAIT_S):
            while b"process started" not in terminal.seen:
                await told("run", "--rm", "shell", "true", env=env)
        os.kill(shared.server_pid(), signal.SIGKILL)
        await terminal.until(b"[resumed]")
        async with asyncio.timeout(WAIT_S):
            while b"process started" not in terminal.seen.partition(b"[resumed]")[2]:
                await command("run", "--rm", "shell", "true", env=env)
        terminal.type(b"\x03")
        assert await terminal.exit_code() == 0


# Where the runtime is


async def test_the_address_may_stand_before_the_verb(shared: TestServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(shared.token)
    nobody = {"MHNOS_STATE_DIR": str(tmp_path / "none"), "MHNOS_URL": "http://127.0.0.1:1"}
    where = ("--url", shared.url, "--token-file", str(tmp_path / "token"))
    assert (await command(*where, "ps", env=nobody))[0] == 0
    assert (await command("ps", *where, env=nobody))[0] == 0
    assert (await command("--url", "http://127.0.0.1:1", "ps", *where, env=nobody))[0] == 0, "the nearer wins"
    code, _, err = await command(*where, "doctor", env=nobody)
    assert (code, b"--url says nothing to doctor" in err) == (2, True)


async def test_a_token_before_a_verb_with_further_verbs_is_that_verbs(
    shared: TestServer, env: dict[str, str], tmp_path: Path
) -> None:
    """`--token-file FILE trash` was refused, and a bare `trash` must not use the operator's."""
    (tmp_path / "token").write_text("a token of nobody")
    given = ("--token-file", str(tmp_path / "token"))
    for verb in (("trash",), ("trash", "list"), ("token", "list")):
        code, _, err = await command(*given, *verb, env=env)
        assert (code, b"token" in err, b"Usage" in err) == (1, True, False), verb
    code, out, err = await command(*given, "token", env=env)
    assert (code, out, b"--token-file stands with a further verb" in err) == (2, b"", True)
