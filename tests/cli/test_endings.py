"""How processes ended, in words: the same cases in lists and at the end of `run` and `attach`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import get_args

import pytest

from mhnos_runtime.cli import endings
from mhnos_runtime.testing import TestServer
from mhnos_runtime.wire.messages import ExitInfo, ExitReason
from tests.cli.console import WAIT_S, Console, command

Env = dict[str, str]

CASES = [
    (0, None, "exit", "exited (0)", ""),
    (3, None, "exit", "exited (3)", ""),
    (None, "SIGSEGV", "signal", "exited (139, SIGSEGV)", "killed by SIGSEGV"),
    (None, "SIGINT", "signal", "exited (130, SIGINT)", ""),
    (None, "SIGKILL", "memory", "exited (137, killed: memory)", "killed: memory limit of 512 MiB"),
    (None, "SIGTERM", "timeout", "exited (124, timed out)", "timed out after 30 s"),
    (3, None, "killed", "exited (3, killed)", "ended by another client"),
    (None, "SIGTERM", "killed", "exited (143, killed)", "killed by another client"),
    (None, "SIGTERM", "idle", "exited (143, ended: nobody attached)", "ended: nobody was attached any more"),
    (None, "SIGTERM", "stopped", "exited (143, ended: runtime stopped)", "ended: the runtime was stopped"),
    (
        None,
        None,
        "lost",
        "exited (lost: runtime was killed)",
        "lost: the runtime was killed, and nobody saw how this process ended",
    ),
]


@pytest.mark.parametrize(("code", "signal_", "reason", "status", "line"), CASES)
def test_an_end_in_words(code: int | None, signal_: str | None, reason: str, status: str, line: str) -> None:
    ended = ExitInfo(code, signal_, reason, "", 1, 1, None, 0, 1)  # type: ignore[arg-type]
    assert endings.status(ended) == status
    assert endings.reason(ended, 512 << 20, 30_000) == line


def test_every_reason_has_words() -> None:
    assert {case[2] for case in CASES} == set(get_args(ExitReason))


def test_what_is_not_known_is_left_out() -> None:
    ended = ExitInfo(None, "SIGKILL", "memory", "", 1, 1, None, 0, 1)
    assert endings.reason(ended) == "killed: memory limit"
    assert endings.reason(ExitInfo(None, "SIGKILL", "timeout", "", 1, 1, None, 0, 1)) == "timed out"


# The line at the end of `run` and `attach`

HUNGRY = "held = []\nwhile True:\n    held.append(bytearray(4 << 20))\n"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_end_by_a_limit_is_told(env: Env, shared: TestServer) -> None:
    """It was an exit code without a word."""
    (shared.workspace / "hungry.py").write_text(HUNGRY)
    code, _, err = await command("run", "--timeout", "300ms", "shell", "sleep 600", env=env)
    assert (code, err) == (124, b"[timed out after 300 ms]\n")
    code, _, err = await command("run", "--limit", "memory_bytes=64m", "python", "hungry.py", env=env)
    assert (code, err) == (137, b"[killed: memory limit of 64 MiB]\n")
    assert (await command("run", "shell", "exit 3", env=env))[::2] == (3, b"")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_end_by_somebody_else_is_told_to_all_who_are_attached(env: Env) -> None:
    script = "echo serving; exec sleep 600"
    async with Console("run", "-t", "--name", "ours", "shell", script, env=env) as first:
        await first.until(b"serving")
        async with Console("attach", "ours", env=env) as second:
            await second.until(b"serving")
            assert (await command("kill", "ours", env=env))[0] == 0
            assert await first.exit_code() == await second.exit_code()
            for terminal in (first, second):
                await terminal.until(b"[killed by another client]")
                assert terminal.is_restored()


@pytest.mark.asyncio(loop_scope="module")
async def test_signals_of_one_s_own_need_no_words(env: Env) -> None:
    for presses in (1, 2):
        trap = "trap 'echo caught' INT; " if presses == 2 else ""
        script = f"{trap}echo serving; while :; do sleep 0.05; done"
        async with Console("run", "shell", script, env=env) as terminal:
            await terminal.until(b"serving")
            terminal.type(b"\x03")
            if presses == 2:
                await terminal.until(b"caught")  # at once, the kernel may make one signal of the two
                terminal.type(b"\x03")
            assert await terminal.exit_code() == (130 if presses == 1 else 137)
            assert b"[" not in terminal.seen.replace(b"^[", b"")


async def test_the_end_of_the_runtime_is_told(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        env = {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url, "NO_COLOR": "1"}
        async with Console("run", "shell", "echo serving; exec sleep 600", env=env) as terminal:
            await terminal.until(b"serving")
            os.kill(server.pid, signal.SIGTERM)
            assert await terminal.exit_code() == 143
            await terminal.until(b"[ended: the runtime was stopped]")
            assert b"connection lost" not in terminal.seen


@pytest.mark.asyncio(loop_scope="module")
async def test_linger_ends_the_process_with_this_command_or_later(env: Env) -> None:
    script = "echo serving; exec sleep 600"
    async with Console("run", "-it", "--linger", "0", "shell", script, env=env) as terminal:
        await terminal.until(b"serving")
        os.kill(terminal.pid, signal.SIGTERM)
        assert await terminal.exit_code() == 143
    _, pid, _ = await command("run", "-d", "--linger", "100ms", "--name", "brief", "shell", script, env=env)
    assert (await command("wait", pid.decode().strip(), env=env))[0] == 0
    async with asyncio.timeout(WAIT_S):
        code, _, err = await command("attach", "brief", env=env)
    assert (code, b"[ended: nobody was attached any more]\n" in err) == (143, True)
