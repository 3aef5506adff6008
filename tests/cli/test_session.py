"""The terminal of `run -it` and `attach` against a double of the server: keys, sizes, faults, restoration."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.console import Console, command
from tests.client.fake import FakeProcess, FakeServer, Peer

ENDED = {"code": 0, "signal": None, "reason": "exit", "evidence": "", "runtimeMs": 5, "cpuMs": 1}


def console(fake: FakeServer, *args: str) -> Console:
    return Console(*args, env={"MHNOS_URL": fake.url, "MHNOS_TOKEN": "t" * 40})


async def ready(fake: FakeServer, terminal: Console) -> None:
    """The process runs, and the first size has been told."""
    await terminal.until_raw()
    await fake.until(lambda: 1000 in fake.processes and len(fake.processes[1000].sizes) >= 2)


async def test_keys_sizes_output_and_exit_code_go_through() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        process = fake.processes[1000]
        assert process.sizes[0] == (90, 20)
        terminal.resize(120, 40)
        await fake.until(lambda: (120, 40) in process.sizes)
        terminal.type(b"\x03\x1a\x1c\x00\xff\r")
        await fake.until(lambda: process.written == b"\x03\x1a\x1c\x00\xff\r")
        await fake.feed(1000, b"\x1b[31mred\r\n\xff\x00")
        await terminal.until(b"\x1b[31mred\r\n\xff\x00")
        await fake.end(1000, code=42)
        assert await terminal.exit_code() == 42
        assert terminal.is_restored()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGQUIT, 131)],
)
async def test_a_signal_ends_the_command_and_restores_the_terminal(number: signal.Signals, code: int) -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        os.kill(terminal.pid, number)
        assert await terminal.exit_code() == code
        assert terminal.is_restored()
        assert b"process 1000 goes on" in terminal.seen
        assert fake.processes[1000].signals == []


async def test_who_ends_the_command_means_the_process() -> None:
    """As docker's --sig-proxy: `timeout 3 mhnos-runtime run python x.py` left the program running."""
    async with FakeServer() as fake, console(fake, "run", "shell") as terminal:
        await fake.until(lambda: 1000 in fake.processes)
        await fake.feed(1000, b"begun")
        await terminal.until(b"begun")
        os.kill(terminal.pid, signal.SIGTERM)
        await fake.until(lambda: fake.processes[1000].signals == ["SIGTERM"])
        os.kill(terminal.pid, signal.SIGTERM)
        assert await terminal.exit_code() == 143
        assert b"process 1000 goes on" in terminal.seen


async def test_linger_0_ends_the_process_when_the_command_goes() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "--linger", "0", "shell") as terminal:
        await ready(fake, terminal)
        os.kill(terminal.pid, signal.SIGTERM)
        assert await terminal.exit_code() == 143
        assert fake.processes[1000].signals == ["SIGTERM"]
        assert fake.requests[0]["lingerMs"] > 0


async def test_detach_keys_leave_the_process_and_undo_its_modes() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        await fake.feed(1000, b"\x1b[?1049h\x1b[?25lfull screen")
        await terminal.until(b"full screen")
        terminal.type(b"a\x10")
        await fake.until(lambda: fake.processes[1000].written == b"a\x10")
        terminal.type(b"b\x10\x11")
        assert await terminal.exit_code() == 0
        assert terminal.is_restored()
        await terminal.until(b"goes on")
        # On the screen of the program, which goes, it could not be read; this once depended on two threads.
        assert terminal.seen.index(b"\x1b[?1049l") < terminal.seen.index(b"goes on")
        assert b"\x1b[?25h" in terminal.seen
        assert fake.processes[1000].written == b"a\x10b"


async def test_the_modes_of_a_program_that_was_killed_are_undone() -> None:
    """The prompt once came on the alternate screen, and the mouse typed into it."""
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        await fake.feed(1000, b"\x1b[?1049h\x1b[?1000hfull screen")
        await terminal.until(b"full screen")
        await fake.end(1000, code=None, signal="SIGKILL", reason="killed")
        assert await terminal.exit_code() == 137
        await terminal.until(b"killed by another client")
        assert terminal.seen.index(b"\x1b[?1049l") < terminal.seen.index(b"killed by")
        assert b"\x1b[?1000l" in terminal.seen


@pytest.mark.parametrize("place", ["variable", "file", "flag"])
async def test_the_keys_that_leave_are_those_of_the_settings(place: str, tmp_path: Path) -> None:
    env, flags = {"XDG_CONFIG_HOME": str(tmp_path)}, ["--detach-keys", "ctrl-a,d"] if place == "flag" else []
    if place == "file":
        (tmp_path / "mhnos-runtime").mkdir()
        (tmp_path / "mhnos-runtime/config.toml").write_text('detach_keys = "ctrl-a,d"\n')
    else:
        env["MHNOS_DETACH_KEYS"] = "ctrl-a,d" if place == "variable" else "ctrl-b,x"
    async with FakeServer() as fake:
        env |= {"MHNOS_URL": fake.url, "MHNOS_TOKEN": "t" * 40}
        async with Console("run", "-it", *flags, "shell", env=env) as terminal:
            await ready(fake, terminal)
            terminal.type(b"\x10\x11\x01d")
            assert await terminal.exit_code() == 0
            assert fake.processes[1000].written == b"\x10\x11"


async def test_a_damaged_settings_file_leaves_the_keys_as_they_are(tmp_path: Path) -> None:
    """It may be the operator's, who starts the server with it."""
    (tmp_path / "config.toml").write_text("no = toml = at all")
    async with FakeServer() as fake:
        env = {"MHNOS_URL": fake.url, "MHNOS_TOKEN": "t" * 40, "MHNOS_CONFIG": str(tmp_path / "config.toml")}
        async with Console("run", "-it", "shell", env=env) as terminal:
            await ready(fake, terminal)
            terminal.type(b"\x10\x11")
            assert await terminal.exit_code() == 0


async def test_a_lost_connection_is_told_and_goes_on_exactly() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        await fake.feed(1000, b"one")
        await terminal.until(b"one")
        fake.refuse_status = 503
        fake.peers[0].cut()
        await terminal.until(b"[connection lost, reconnecting...]")
        fake.processes[1000].log += b"two"
        fake.refuse_status = None
        await terminal.until(b"two")
        assert b"[resumed]" in terminal.seen
        assert terminal.seen.count(b"one") == terminal.seen.count(b"two") == 1
        terminal.type(b"x")
        await fake.until(lambda: fake.processes[1000].written == b"x")
        await fake.end(1000)
        assert await terminal.exit_code() == 0


@pytest.mark.parametrize(("drawn", "anew"), [(b"\x1b[?1049hscreen", True), (b"lines", False)])
async def test_a_full_screen_is_drawn_anew_after_the_notices_of_a_lost_connection(
    drawn: bytes, anew: bool
) -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        await fake.feed(1000, drawn)
        await terminal.until(drawn)
        fake.peers[0].cut()
        await terminal.until(b"[resumed]")
        await fake.until(lambda: any(request["type"] == "attach" for request in fake.requests))
        [attach] = [request for request in fake.requests if request["type"] == "attach"]
        assert attach.get("repaint", False) is anew


@pytest.mark.parametrize("typed", [b"\x10\x11", b"\x03"])
async def test_without_a_connection_one_can_still_leave(typed: bytes) -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        fake.refuse_status = 503
        fake.peers[0].cut()
        await terminal.until(b"reconnecting")
        terminal.type(typed)
        assert await terminal.exit_code() == (0 if typed == b"\x10\x11" else 130)
        assert terminal.is_restored()


async def test_a_refused_token_ends_the_session_with_125_and_a_usable_terminal() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        fake.token = "rotated"
        fake.peers[0].cut()
        assert await terminal.exit_code() == 125
        assert terminal.is_restored()
        await terminal.until(b"refused the token")


async def test_a_stop_from_outside_gives_the_terminal_back_meanwhile() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        os.kill(terminal.pid, signal.SIGTSTP)
        stat = Path(f"/proc/{terminal.pid}/stat")
        await terminal.until_true(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        assert terminal.is_restored()
        os.kill(terminal.pid, signal.SIGCONT)
        await terminal.until_raw()
        await fake.end(1000)
        assert await terminal.exit_code() == 0
        assert terminal.is_restored()


async def test_attach_replays_without_the_questions_and_tells_a_gap() -> None:
    """A replayed question made the terminal type its answer into the shell, again with each attach."""
    async with FakeServer() as fake:
        fake.processes[1000] = FakeProcess(
            b"....kept\x1b[6n\x1b[c\x1b]11;?\x07after", first_offset=4, pty={"cols": 80, "rows": 24}
        )
        async with console(fake, "attach", "--from", "0", "1000") as terminal:
            await terminal.until(b"keptafter")
            await terminal.until(b"4 bytes of output are no longer kept: 0 to 4")
            await fake.feed(1000, b"live\x1b[6n")
            await terminal.until(b"live\x1b[6n")
            await fake.end(1000, code=None, signal="SIGKILL", reason="killed")
            assert await terminal.exit_code() == 137
            assert terminal.is_restored()


ANSWERED = b"\x1b[6n\x1b[c\x1b]11;?\x07\x1bP$qm\x1b\\\x05\x1b[?1000h"


@pytest.mark.parametrize(
    "args",
    [("logs",), ("logs", "-f"), ("attach", "--no-stdin"), ("attach",)],
    ids=" ".join,
)
@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
async def test_what_only_shows_output_never_makes_the_terminal_answer(
    args: tuple[str, ...], ended: bool
) -> None:
    """The answers landed in the prompt of the shell that the command was called from."""
    raw = args == ("attach",) and not ended
    async with FakeServer() as fake:
        fake.chunk_bytes = 3
        fake.processes[1000] = FakeProcess(
            log=b"old" + ANSWERED + b"seen", pty={"cols": 80, "rows": 24}, exit=ENDED if ended else None
        )
        fake.scopes = ["view"] if args == ("attach",) and not ended else None
        async with console(fake, *args, "1000") as terminal:
            await terminal.until(b"seen")
            if not ended and args != ("logs",):
                await fake.feed(1000, b"new" + ANSWERED)
                await fake.feed(1000, b"\x1b[")
                await fake.end(1000)
            assert await terminal.exit_code() == 0
            for question in (b"\x1b[6n", b"\x1b[c", b"\x1b]11;?", b"\x1bP$q", b"\x05", b"\x1b[?1000h"):
                assert question not in terminal.seen
            assert b"oldseen" in terminal.seen
            assert not terminal.seen.endswith(b"\x1b[")
    assert not raw or fake.scopes == ["view"]


async def test_a_run_without_a_terminal_of_its_own_never_makes_this_one_answer() -> None:
    async with FakeServer() as fake, console(fake, "run", "shell") as terminal:
        await fake.until(lambda: 1000 in fake.processes)
        await fake.feed(1000, b"out" + ANSWERED + b"\x1b[?1049h")
        fake.processes[1000].stderr = True
        await fake.feed(1000, b"err" + ANSWERED)
        await fake.end(1000)
        assert await terminal.exit_code() == 0
        assert b"outerr" in terminal.seen.replace(b"\x1b[?1049h", b"")
        assert b"\x1b[6n" not in terminal.seen
        assert b"\x1b[?1049l" in terminal.seen  # the prompt is on the usual screen


async def test_half_a_question_in_each_stream_is_a_whole_one_to_the_terminal() -> None:
    async with FakeServer() as fake, console(fake, "run", "shell") as terminal:
        await fake.until(lambda: 1000 in fake.processes)
        await fake.feed(1000, b"\x1b[")
        fake.processes[1000].stderr = True
        await fake.feed(1000, b"6nend")
        await fake.end(1000)
        assert await terminal.exit_code() == 0
        assert terminal.seen.rstrip() == b"end"


async def test_attach_at_the_end_has_the_screen_drawn_anew() -> None:
    async with FakeServer() as fake:
        fake.processes[1000] = FakeProcess(b"old", pty={"cols": 80, "rows": 24})
        async with console(fake, "attach", "--end", "1000") as terminal:
            await terminal.until_raw()
            await fake.until(lambda: any(1000 in peer.attached for peer in fake.peers))
            await fake.feed(1000, b"screen")
            await terminal.until(b"screen")
            await fake.end(1000)
            assert await terminal.exit_code() == 0
            assert b"old" not in terminal.seen
        [attach] = [request for request in fake.requests if request["type"] == "attach"]
        assert (attach["from"], attach["repaint"]) == ("end", True)


@pytest.mark.parametrize("extra", [(), ("--end",), ("--no-stdin",)])
async def test_who_may_only_view_is_told_so_once_and_sends_nothing_else(extra: tuple[str, ...]) -> None:
    """Sizes and keys were sent all the same, and each was refused."""
    async with FakeServer() as fake:
        fake.scopes = ["view"]
        fake.processes[1000] = FakeProcess(b"", pty={"cols": 80, "rows": 24})
        async with console(fake, "attach", *extra, "1000") as terminal:
            await fake.until(lambda: any(1000 in peer.attached for peer in fake.peers))
            await fake.feed(1000, b"screen")
            await terminal.until(b"screen")
            terminal.type(b"touch escalated\n")
            terminal.resize(120, 40)
            fake.peers[0].cut()
            await terminal.until(b"resumed")
            await fake.until(lambda: any(1000 in peer.attached for peer in fake.peers))
            await fake.feed(1000, b" goes on")
            await terminal.until(b"screen")
            await terminal.until(b" goes on")
            await fake.end(1000, code=3)
            assert await terminal.exit_code() == 3
            assert terminal.is_restored()
            assert terminal.seen.count(b"view only") == 1
        assert {request["type"] for request in fake.requests} <= {"attach", "ack"}
        assert not any(request.get("repaint") for request in fake.requests)
        assert fake.processes[1000].written == b""


async def test_control_alone_is_enough_to_type() -> None:
    async with FakeServer() as fake:
        fake.scopes = ["control"]
        fake.processes[1000] = FakeProcess(b"", pty={"cols": 80, "rows": 24})
        async with console(fake, "attach", "1000") as terminal:
            await terminal.until_raw()
            terminal.type(b"x")
            await fake.until(lambda: fake.processes[1000].written == b"x")
            await fake.end(1000)
            assert await terminal.exit_code() == 0
            assert b"view only" not in terminal.seen


async def test_keys_of_which_nobody_knows_are_told() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)

        async def die(peer: Peer, pid: int, data: bytes) -> bool:
            fake.on_input, fake.processes[pid].uncertain_from = None, 0
            fake.processes[pid].typed[peer.names[pid]] = 1
            peer.cut()
            return True

        fake.on_input = die
        terminal.type(b"x")
        await terminal.until(b"killed while it typed 'x': bytes 0 to 1")
        assert fake.processes[1000].written == b""
        await fake.end(1000)
        assert await terminal.exit_code() == 0


async def test_a_paste_waits_for_a_slow_process() -> None:
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        paste = b"0123456789" * 300
        terminal.type(paste)
        await fake.until(lambda: fake.processes[1000].written == paste)
        await fake.end(1000)
        assert await terminal.exit_code() == 0


async def test_interrupts_without_a_terminal_are_the_processs_own_then_force_then_leave() -> None:
    async with FakeServer() as fake, console(fake, "run", "python", "app.py") as terminal:
        await fake.until(lambda: 1000 in fake.processes and fake.processes[1000].stdin_closed)
        await fake.feed(1000, b"running\n")
        await terminal.until(b"running")
        assert terminal.is_cooked()
        for signals in (["SIGINT"], ["SIGINT", "SIGKILL"]):
            terminal.type(b"\x03")
            await fake.until(lambda signals=signals: fake.processes[1000].signals == signals)  # type: ignore[misc]
        terminal.type(b"\x03")
        assert await terminal.exit_code() == 130


async def test_a_terminal_is_asked_for_where_there_is_none() -> None:
    code, _, err = await command("run", "-it", "shell")
    assert code == 1
    assert b"the input device is not a TTY" in err


async def test_shared_descriptors_stay_blocking() -> None:
    """O_NONBLOCK belongs to the open file: set here, it would break the shell that started the command."""
    async with FakeServer() as fake, console(fake, "run", "-it", "shell") as terminal:
        await ready(fake, terminal)
        assert os.get_blocking(terminal.slave)
        await fake.end(1000)
        await terminal.exit_code()
        assert os.get_blocking(terminal.slave)


async def test_the_reader_of_the_output_may_go() -> None:
    async with FakeServer() as fake:
        fake.processes[1000] = FakeProcess(b"line\n" * 100_000, exit=ENDED)
        fake.chunk_bytes = 65536
        process = await asyncio.create_subprocess_shell(
            "$PYTHON -m mhnos_runtime logs 1000 | head -n 1; echo ${PIPESTATUS[0]}",
            stdout=asyncio.subprocess.PIPE,
            executable="/bin/bash",
            env={**os.environ, "MHNOS_URL": fake.url, "PYTHON": sys.executable},
        )
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        assert out == b"line\n141\n"
