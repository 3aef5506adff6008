"""What must be undone in a terminal after a program. Pure: bytes in, bytes out."""

from __future__ import annotations

import re

_ALTERNATE = re.compile(rb"\x1b\[\?(?:47|1047|1049)([hl])")
_ALTERNATE_BYTES = 8
# Any mode that is set: of the terminal or of its keyboard.
_SET = re.compile(rb"\x1b\[[?>=][0-9;]*[hmu]|\x1b=")
# Attributes, cursor keys, keypad, cursor, mouse, focus reports, bracketed paste.
_USUAL_MODES = (
    b"\x1b[0m\x1b[?1l\x1b>\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l"
)


class Modes:
    """Remembers whether the alternate screen is on, and whether any mode was set, so that a terminal can be
    given back usable."""

    def __init__(self) -> None:
        self._tail = b""
        self.alternate = False
        self.touched = False

    def feed(self, data: bytes) -> None:
        """Look at output on its way to the terminal."""
        seen = self._tail + data
        for match in _ALTERNATE.finditer(seen):
            self.alternate = match[1] == b"h"
        self.touched = self.touched or _SET.search(seen) is not None
        self._tail = seen[-_ALTERNATE_BYTES:]

    def undo(self) -> bytes:
        """What brings the terminal back to a shell's expectations."""
        return (b"\x1b[?1049l" if self.alternate else b"") + _USUAL_MODES
