"""The supervisor's own lines."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from mhnos_runtime.supervisor.log import LINES_A_MINUTE, TEXT_CHARACTERS, Log, place


def test_lines_of_one_message_are_bounded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, now = Log(False), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for number in range(100):
        log.write("error", "again", number=number)
    log.write("error", "other")
    now += 60
    log.write("error", "again", number=100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LINES_A_MINUTE + 2
    assert lines[-1].endswith("again number=100 unreported=80")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_is_bounded_whatever_it_tells(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """A plan that was refused put 140,000 control characters of a server's into one line."""
    Log(as_json).write("warning", "a plan was refused", reason="\x7f" * 140_000)
    line = capsys.readouterr().err
    assert "…" in line or "\\u2026" in line
    assert len(line) < 6 * TEXT_CHARACTERS + 200


def test_the_place_of_an_error_is_one_line() -> None:
    def deep(levels: int) -> Any:
        return deep(levels - 1) if levels else 1 // 0

    with pytest.raises(ZeroDivisionError) as raised:
        deep(3)
    assert place(raised.value).startswith("ZeroDivisionError: ")
    assert " at test_log.py:" in place(raised.value)
    assert place(ValueError("a\nb" * 1000)).count("\n") == 0
    assert len(place(ValueError("x" * 1000))) < 200


def test_a_line_is_json_where_machines_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    Log(True).write("error", "it broke", pid=1000, why="a\nb")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("ts").endswith("Z")
    assert line == {"level": "error", "msg": "it broke", "logger": "supervisor", "pid": 1000, "why": "a\nb"}


def test_a_line_for_people_has_the_form_of_the_server_s(capsys: pytest.CaptureFixture[str]) -> None:
    """Values with spaces ran into each other, and the times of the two could not be compared."""
    Log(False).write("error", "it broke", pid=1000, why='a "b"\nc', path="/x", none=None, empty="")
    line = capsys.readouterr().err
    fields = r'pid=1000 why="a \\"b\\"\\nc" path=/x none=null empty=""'
    assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d\d\d error   it broke {fields}\n", line), line


def test_no_value_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Log(False).write("info", "a setting has changed", new="\x1b]0;title\x07", old="\x9b31m", source="\u202e")
    line = capsys.readouterr().err.rstrip("\n")
    assert line.isprintable()
    assert r'new="\u001b]0;title\u0007"' in line


def test_a_stderr_that_takes_nothing_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stderr", full)
        Log(False).write("error", "lost")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.close()
