"""What a terminal must not be told, and what must be undone in it. Pure: bytes in, bytes out."""

from __future__ import annotations

import re

# Questions to which a terminal answers as if somebody had typed the answer: device attributes, status
# reports,
# colours, modes, terminfo strings, window reports, version, keyboard flags, answerback (ECMA-48; xterm's
# ctlseqs).
_QUESTIONS = re.compile(
    rb"\x1b\[[?>=]?[0-9;]*c"
    rb"|\x1b\[\??[0-9;]*n"
    rb"|\x1b\[\??[0-9;]*\$p"
    rb"|\x1b\[(?:1[1345689]|2[01])(?:;[0-9;]*)?t"
    rb"|\x1b\[>[0-9;]*q"
    rb"|\x1b\[\?u"
    rb"|\x1b\][0-9;]*;\?(?:\x07|\x1b\\)"
    rb"|\x1bP[+$]q[^\x1b\x07]*(?:\x1b\\|\x07)"
    rb"|\x1bZ|\x05"
)
# The beginning of a sequence that the next chunk may complete.
_UNFINISHED = re.compile(rb"\x1b(?:\[[?>=]?[0-9;]*\$?|\][0-9;?]*\x1b?|P(?:[+$](?:q[^\x1b\x07]*\x1b?)?)?)?\Z")
_LONGEST_UNFINISHED_BYTES = (
    256  # a question is short; a longer one is something else and must not be held back
)

_ALTERNATE = re.compile(rb"\x1b\[\?(?:47|1047|1049)([hl])")
_ALTERNATE_BYTES = 8
# Attributes, cursor keys, keypad, cursor, mouse, focus reports, bracketed paste.
_USUAL_MODES = (
    b"\x1b[0m\x1b[?1l\x1b>\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l"
)


class QuestionFilter:
    """Takes questions out of a replay: the terminal's answers would be typed into the process again."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown now; the beginning of what may be a question waits for its end."""
        data = self._held + data
        unfinished = _UNFINISHED.search(data[-_LONGEST_UNFINISHED_BYTES:])
        self._held = unfinished[0] if unfinished else b""
        return _QUESTIONS.sub(b"", data[: len(data) - len(self._held)])

    def rest(self) -> bytes:
        """What was held back, at the end of the replay: what follows completes it."""
        held, self._held = self._held, b""
        return held


class Modes:
    """Remembers whether the alternate screen is on, so that a detached terminal can be given back usable."""

    def __init__(self) -> None:
        self._tail = b""
        self.alternate = False

    def feed(self, data: bytes) -> None:
        """Look at output on its way to the terminal."""
        seen = self._tail + data
        for match in _ALTERNATE.finditer(seen):
            self.alternate = match[1] == b"h"
        self._tail = seen[-_ALTERNATE_BYTES:]

    def undo(self) -> bytes:
        """What brings the terminal back to a shell's expectations."""
        return (b"\x1b[?1049l" if self.alternate else b"") + _USUAL_MODES
