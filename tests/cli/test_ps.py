"""Rows of `ps`, and the width of tables."""

from __future__ import annotations

import pytest

from mhnos_runtime.cli import say
from mhnos_runtime.cli.ps import COMMAND, HEAD, cells
from mhnos_runtime.wire.messages import ExitInfo, Port, ProcessInfo
from tests.cli.console import Console, command

ROW = {"pid": 1001, "type": "shell", "command": "make", "args": ["-j", "2"], "status": "running"}


def row(**fields: object) -> tuple[str, ...]:
    info = ProcessInfo(**{**ROW, "start_time": 1_000_000, **fields})  # type: ignore[arg-type]
    return cells(info, 1_060.0)


def test_a_row_says_what_there_is() -> None:
    assert row() == ("1001", "-", "shell", "make -j 2", "1m ago", "running", "-")
    ended = ExitInfo(None, "SIGKILL", "memory", "", 1, 1, None, 0, 1)
    ports = [
        Port("http", 8080, "127.0.0.1", "http://127.0.0.1:8080"),
        Port("db", 5, "::1"),
        Port("in", 6, None),
    ]
    assert row(name="web", exit=ended, ports=ports)[1:] == (
        "web",
        "shell",
        "make -j 2",
        "1m ago",
        "exited (137, killed: memory)",
        "http http://127.0.0.1:8080, db [::1]:5, in -:6",
    )


LONG = row(name="web", args=["x" * 300])
WIDE = row(command="\u6f22\u5b57" * 100, args=[])
EVIL = row(command="\x1b[2J\n\u202e" * 30)


@pytest.mark.parametrize("columns", [200, 100, 80, 70, 40, 10])
def test_no_line_is_wider_than_the_screen(columns: int) -> None:
    shown = say.table_lines(HEAD, [LONG, WIDE, EVIL], shrink=COMMAND, columns=columns)
    assert len(shown) == 4
    assert all(say.width(line) <= columns and line.isprintable() for line in shown)
    if columns >= 80:
        assert shown[1].endswith("running  -"), "the command alone gives way"
        assert "x\u2026  1m ago" in shown[1]


def test_elsewhere_than_on_a_screen_nothing_is_cut() -> None:
    assert "x" * 300 in say.table_lines(HEAD, [LONG], shrink=COMMAND)[1]


@pytest.mark.parametrize(
    ("text", "width"), [("abc", 3), ("\u6f22\u5b57", 4), ("e\u0301", 1), ("\u00e9", 1), ("", 0)]
)
def test_the_width_of_a_text(text: str, width: int) -> None:
    assert say.width(text) == width


@pytest.mark.parametrize(
    ("text", "columns", "cut"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab\u2026"),
        ("\u6f22\u5b57", 3, "\u6f22\u2026"),
        ("\u6f22\u5b57", 2, "\u2026"),
    ],
)
def test_what_is_cut_says_so(text: str, columns: int, cut: str) -> None:
    assert say.cut(text, columns) == cut


@pytest.mark.parametrize(
    ("ms", "shown"), [(0, "0 ms"), (500, "500 ms"), (1500, "1.5 s"), (30_000, "30 s"), (90_000, "1m 30s")]
)
def test_a_span_is_told_exactly(ms: int, shown: str) -> None:
    assert say.span(ms) == shown


@pytest.mark.asyncio(loop_scope="module")
async def test_the_list_fits_a_terminal(env: dict[str, str]) -> None:
    words = " ".join(["word"] * 100)
    code, pid, _ = await command("run", "-d", "shell", f"sleep 600; echo {words}", env=env)
    assert code == 0
    async with Console("ps", cols=72, env=env) as terminal:
        assert await terminal.exit_code() == 0
        await terminal.until(b"running")
    lines = terminal.seen.decode().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 72
    assert words in (await command("ps", env=env))[1].decode()
    await command("kill", "-9", pid.decode().strip(), env=env)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_status_chooses_among_all(env: dict[str, str]) -> None:
    """As in docker: `ps -q -f status=exited` once had nothing for `rm`, and a typo of a status had nothing
    either."""
    pid = (await command("run", "-d", "shell", "exit 3", env=env))[1].decode()
    assert (await command("wait", pid.strip(), env=env))[:2] == (0, b"3\n")
    assert pid in (await command("ps", "-q", "-f", "status=exited", env=env))[1].decode()
    assert pid not in (await command("ps", "-q", "-f", "status=running", env=env))[1].decode()
    code, out, err = await command("ps", "-f", "status=exitd", env=env)
    assert (code, out, b"'exitd' is none of running, ending, exited" in err) == (2, b"", True)


@pytest.mark.asyncio(loop_scope="module")
async def test_colours_are_for_terminals_that_want_them(env: dict[str, str]) -> None:
    for wanted in (True, False):
        colour = {name: value for name, value in env.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
        async with Console("kill", "1", env={**colour, "NO_COLOR": "" if wanted else "1"}) as terminal:
            assert await terminal.exit_code() == 1
            await terminal.until(b"hint:")
        assert (b"\x1b[" in terminal.seen) is wanted
