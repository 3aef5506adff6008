"""What this command prints, where the texts in it are somebody else's."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from click.testing import CliRunner

from mhnos_runtime.cli import copying, events, rm, say, trash
from mhnos_runtime.wire import messages as m

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct

#: CSI and OSC as single characters (ECMA-48), DEL, a change of the writing direction, and beyond 16 bits.
DRIVES = "\x9b31m\x9d0;title\x9c\x7f\u202e\u2028\U000e0001"


def test_json_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    value = [{"command": DRIVES, "name": "grüße 語 😀"}]
    say.as_json(value)
    text = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "grüße 語 😀" in text
    assert json.loads(text) == value


def test_an_event_as_json_drives_no_terminal() -> None:
    process = m.ProcessInfo(1, "shell", DRIVES, [DRIVES], start_time=0, status="running")
    text = events.as_json(m.ProcessEvent("started", 0, process))
    assert text.isprintable()
    assert msgspec.json.decode(text)["process"]["args"] == [DRIVES]


def test_what_was_not_copied_is_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """The name of a file in an archive must not look like another message."""
    assert not copying._told([("a\nmhnos-runtime: all is well", DRIVES)], 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "a\\nmhnos-runtime" in line


def test_ids_of_the_trash_drive_no_terminal_and_no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a server that lies has such ids: somebody copies the command that is shown into his shell."""

    class Lying:
        def ask(self, *_: object) -> m.FileRemoved:
            return m.FileRemoved("/f", "$(x)" + DRIVES)

    told = rm._remove_file(cast("Direct", Lying()), "/f", False, False, False, True)
    assert told is not None
    assert told.isprintable()
    assert "$(x)" not in told.replace("$'$(x)", "")
    item = m.TrashItem(DRIVES, "/f", "file", 1, 0, 0)
    monkeypatch.setattr(trash, "open_direct", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(trash, "_items", lambda _: iter([item]))
    result = CliRunner().invoke(trash.trash, ["list", "-q"])
    assert result.output.strip().isprintable()
