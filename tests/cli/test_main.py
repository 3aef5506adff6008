"""The command line itself: help, errors, exit codes, completion, and that it starts quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mhnos_runtime import __version__
from mhnos_runtime.cli import say
from mhnos_runtime.cli.main import VERBS, cli, run
from mhnos_runtime.cli.target import parse_duration_ms

HEAVY = ("aiohttp", "asyncio", "msgspec", "mhnos_runtime.client.runtime", "mhnos_runtime.server")


def verb(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_with_examples(name: str) -> None:
    result = CliRunner().invoke(verb(name), ["--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert verb(name).get_short_help_str(200) == VERBS[name].summary


def test_help_imports_nothing_heavy() -> None:
    """Help must be there at once; what is slow to import is known."""
    code = f"""
import sys
from mhnos_runtime.cli.main import run
assert run(["--help"]) == 0
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_was_closed_by_who_started_it_stays_unused(closed: str) -> None:
    """The connection got the number of a closed stdout, so that output went to the server; and each line that
    was to be shown ended in a traceback."""
    script = f'"{sys.executable}" -m mhnos_runtime config --start {closed}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("SETTING" in done.stdout) is (closed in ("<&-", "2>&-"))


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert __version__ in capfd.readouterr().out


def test_an_unknown_verb_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["frobnicate"]) == 2
    assert "No such command" in capfd.readouterr().err


@pytest.mark.parametrize(("word", "meant"), [("list", "ps"), ("version", "--version"), ("attahc", "attach")])
def test_a_word_of_other_programs_leads_to_the_verb(
    word: str, meant: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([word, "x"]) == 2
    assert f"No such verb: {word!r}. Did you mean mhnos-runtime {meant}?" in capfd.readouterr().err


def test_an_error_cannot_drive_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """Its text may be of a program, a file's name or a server."""
    say.error("bad \x1b[2J\udcff\nmore", "hint\r")
    told = "mhnos-runtime: bad \\x1b[2J\\udcff\nmore\nhint: hint\\r\n"
    assert capfd.readouterr().err == told


def test_no_runtime_is_told_in_two_lines(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["ps", "--url", "http://127.0.0.1:1"]) == 1
    message, hint = capfd.readouterr().err.splitlines()
    assert message == "mhnos-runtime: cannot connect to http://127.0.0.1:1: Connection refused"
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("args", [["run", "python", "x.py"], ["attach", "1000"]])
def test_the_runtime_failing_is_125(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run([args[0], "--url", "http://127.0.0.1:1", *args[1:]]) == 125
    assert "cannot connect" in capfd.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["kill", "ABC"],
        ["kill", "-s", "NOSUCH", "1000"],
        ["run", "--timeout", "soon", "shell"],
        ["run", "--detach-keys", "ctrl-1", "shell"],
        ["logs", "--tail", "much", "1000"],
        ["logs", "--since", "yesterday", "1000"],
        ["attach", "--from", "middle", "1000"],
    ],
)
def test_wrong_values_are_usage_errors_that_name_them(
    args: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 2
    assert "Error: Invalid value" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "span_ms"),
    [("30s", 30_000), ("30", 30_000), ("1500ms", 1500), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)],
)
def test_durations(text: str, span_ms: int) -> None:
    assert parse_duration_ms(text) == span_ms


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(verb("completion"), [shell])
    assert "_MHNOS_RUNTIME_COMPLETE" in result.output


def complete(words: str, env: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "mhnos_runtime"],
        env={
            **os.environ,
            **env,
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "_MHNOS_RUNTIME_COMPLETE": "bash_complete",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_verbs_kinds_and_signals_complete_and_pids_fail_silently(tmp_path: Path) -> None:
    env = {"MHNOS_STATE_DIR": str(tmp_path), "MHNOS_URL": "http://127.0.0.1:1"}
    assert complete("mhnos-runtime at", env) == ["attach"]
    assert complete("mhnos-runtime run py", env) == ["python"]
    assert complete("mhnos-runtime kill -s WIN", env) == ["WINCH"]
    assert complete("mhnos-runtime attach 1", env) == []


def test_config_says_where_each_value_comes_from(tmp_path: Path) -> None:
    env = {"MHNOS_RUNTIME_PORT": "9123", "HOME": str(tmp_path)}
    rows = json.loads(CliRunner().invoke(verb("config"), ["--json"], env=env).output)
    port = next(row for row in rows if row["name"] == "port")
    assert (port["value"], port["source"]) == ("9123", "variable MHNOS_RUNTIME_PORT")


def test_token_is_made_shown_and_rotated(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    runner = CliRunner()
    first = runner.invoke(verb("token"), ["--state-dir", state]).output
    assert runner.invoke(verb("token"), ["--state-dir", state]).output == first
    second = runner.invoke(verb("token"), ["--state-dir", state, "--rotate"]).output
    assert len(second.strip()) >= 43
    assert second != first
    assert (tmp_path / "state" / "token").stat().st_mode & 0o777 == 0o600


def test_names_of_processes_cannot_drive_the_terminal() -> None:
    assert say.table_lines(("NAME",), [("a\x1b[2Jb\n",)]) == ["NAME", "a\\x1b[2Jb\\n"]


def test_quantities_for_people() -> None:
    assert [say.size(n) for n in (None, 5, 1536, 3 << 20)] == ["-", "5 B", "1.5 KiB", "3.0 MiB"]
    assert [say.duration(s) for s in (0, 59, 3660, 90_061)] == ["0s", "59s", "1h 1m", "1d 1h"]
