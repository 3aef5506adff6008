"""`top`: what a screen shows, and the terminal that it borrows."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mhnos_runtime.cli.top import by_cpu, by_memory, lines
from mhnos_runtime.cli.usage import Used
from mhnos_runtime.testing import TestServer
from mhnos_runtime.wire.messages import ProcessInfo, ProcessUsage
from tests.cli.console import Console, command

LEFT = b"\x1b[?25h\x1b[?1049l"


def used(pid: int, cpu_percent: float | None, rss_bytes: int | None, command: str = "make") -> Used:
    row = ProcessInfo(pid, "shell", command, [], 0, "running")
    return Used(row, ProcessUsage(pid, 1000, rss_bytes, 3), cpu_percent)


ALL = [used(1, 1.0, 300), used(2, None, None), used(3, 50.0, 100), used(4, 1.0, 200)]


def pids(rows: list[Used]) -> list[int]:
    return [each.process.pid for each in rows]


def test_the_busiest_and_the_largest_come_first() -> None:
    assert pids(by_cpu(ALL)) == [3, 1, 4, 2]
    assert pids(by_memory(ALL)) == [1, 4, 3, 2]


def test_a_screen_is_never_overfull() -> None:
    many = [used(pid, 1.0, 1 << 20, "x\x1b[2J" * 100) for pid in range(100, 200)]
    for columns, rows in ((80, 24), (20, 5), (200, 500)):
        shown = lines(many, "", columns, rows)
        assert len(shown) == min(rows, 103)
        assert all(len(line) <= columns and line.isprintable() for line in shown)


def test_the_head_sums_up() -> None:
    head, _, titles, row, *_ = lines(by_cpu(ALL), "", 100, 24)
    assert head == "4 processes, 52.0 % CPU, 600 B   q quit   p by CPU   m by memory"
    assert titles.split() == ["PID", "NAME", "KIND", "CPU", "CPU", "TIME", "MEMORY", "TASKS", "COMMAND"]
    assert row.split() == ["3", "-", "shell", "50.0", "%", "1.00", "s", "100", "B", "3", "make"]
    assert lines([], "resumed", 100, 24)[0] == "0 processes, 0.0 % CPU, 0 B   [resumed]"


@pytest.mark.parametrize("leave", ["q", "ctrl-c", "SIGTERM"])
@pytest.mark.asyncio(loop_scope="module")
async def test_the_terminal_is_given_back(leave: str, env: dict[str, str]) -> None:
    await command("run", "-d", "--name", f"busy-{leave.lower()}", "shell", "sleep 600", env=env)
    async with Console("top", env=env) as terminal:
        await terminal.until(f"busy-{leave.lower()}".encode())
        terminal.type(b"m")
        terminal.resize(50, 12)
        await terminal.until_true(lambda: b"COMMA" in terminal.seen.rpartition(b"\x1b[H")[2])
        if leave == "SIGTERM":
            os.kill(terminal.pid, signal.SIGTERM)
        else:
            terminal.type(b"q" if leave == "q" else b"\x03")
        assert await terminal.exit_code() == (143 if leave == "SIGTERM" else 0)
        assert terminal.is_restored()
        await terminal.until(LEFT)
        assert terminal.seen.startswith(b"\x1b[?1049h")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stop_lends_the_terminal_to_the_shell(env: dict[str, str]) -> None:
    async with Console("top", env=env) as terminal:
        await terminal.until(b"COMMAND")
        terminal.type(b"\x1a")
        await terminal.until_true(terminal.is_restored)
        os.kill(terminal.pid, signal.SIGCONT)
        await terminal.until_raw()
        terminal.type(b"q")
        assert await terminal.exit_code() == 0


async def test_without_a_server_one_can_still_leave(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        env = {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url}
        async with Console("top", env=env) as terminal:
            await terminal.until(b"COMMAND")
            await server.stop()
            await terminal.until(b"reconnecting")
            terminal.type(b"q")
            assert await terminal.exit_code() == 0
            assert terminal.is_restored()


@pytest.mark.asyncio(loop_scope="module")
async def test_it_goes_on_after_a_killed_server(env: dict[str, str], shared: TestServer) -> None:
    async with Console("top", env=env) as terminal:
        await terminal.until(b"COMMAND")
        os.kill(shared.server_pid(), signal.SIGKILL)
        await terminal.until(b"[resumed]")
        terminal.type(b"q")
        assert await terminal.exit_code() == 0
        assert terminal.is_restored()
