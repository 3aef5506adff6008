"""A terminal is given back as it was."""

from __future__ import annotations

from mhnos_runtime.cli.screen import Modes


def test_the_alternate_screen_is_left_only_where_it_was_entered() -> None:
    modes = Modes()
    assert b"\x1b[?1049l" not in modes.undo()
    modes.feed(b"text\x1b[?10")
    modes.feed(b"49h")
    assert modes.undo().startswith(b"\x1b[?1049l")
    modes.feed(b"\x1b[?1049l")
    assert b"\x1b[?1049l" not in modes.undo()
