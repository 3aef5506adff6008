"""What this command prints, where the texts in it are somebody else's."""

from __future__ import annotations

import json

import msgspec
import pytest

from mhnos_runtime.cli import events, say
from mhnos_runtime.wire import messages as m

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
