"""Takes out of a process's output what would make the local terminal answer. Pure: bytes in, bytes out.

Knows the syntax of terminals (ECMA-48, xterm's ctlseqs, kitty's protocols), no terminal and no process. Every
ESC and every C1 control is looked at as the beginning of a sequence, wherever it stands, and a sequence that
is broken off is taken out too: so nothing that is left can become a question together with what surrounds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mhnos_runtime.client.types import Stream

# bytes; a sequence that is longer, such as a picture, is not held back: it is judged by its beginning
LONGEST_HELD_BYTES = 8192
_ANSWERBACK = b"\x05"  # ENQ: has its effect everywhere, also inside of sequences

# Controls that a terminal carries out inside of a sequence: not ESC, CAN and SUB, which break it off.
_C0 = rb"\x00-\x17\x19\x1c-\x1f\x7f"
_PASSED_OVER = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in b"\x18\x1a\x1b")
# A character beyond ASCII that is no C1 control: its bytes are not to be taken for those.
_CHARACTER = (
    rb"(?:\xc2[\xa0-\xbf]|[\xc3-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf4][\x80-\xbf]{3})"
)
_CUT_CHARACTER = rb"(?:[\xc2-\xf4]|[\xe0-\xf4][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})\Z"
# What a string (OSC, DCS, APC, PM, SOS) holds, and what ends it; the second half of an end may be still to
# come.
_PAYLOAD = (
    rb"(?:"
    + _CHARACTER
    + rb"|(?!\xc2[\x80-\x9f]|"
    + _CUT_CHARACTER
    + rb")[\x00-\x06\x08-\x17\x19\x1c-\x7f\xa0-\xff])*+"
)
_END = rb"(?P<end>\x07|\x1b\\|\xc2\x9c|\x9c|" + _CUT_CHARACTER + rb"|\x1b\Z)?"

# Characters, and the sequences that most output consists of: many of them are one token, for speed.
_PLAIN = rb"(?P<plain>(?:[\x00-\x1a\x1c-\x7f]++|" + _CHARACTER + rb"++|\x1b\[[0-9;:]*+[@-MPSTXZabd-hlmrs])++)"

_TOKEN = re.compile(
    _PLAIN
    + rb"|(?:\x1b["
    + _C0
    + rb"]*+\[|\xc2?\x9b)(?P<csi>[\x20-\x3f"
    + _C0
    + rb"]*+)(?P<final>[\x40-\x7e])?"
    rb"|(?:\x1b[" + _C0 + rb"]*+(?P<string>[\]P_^X])|\xc2?(?P<string8>[\x9d\x90\x9f\x9e\x98]))"
    rb"(?P<payload>"
    + _PAYLOAD
    + rb")"
    + _END
    + rb"|\x1b["
    + _C0
    + rb"]*+[\x20-\x2f"
    + _C0
    + rb"]*+(?P<escape>[\x30-\x7e])?"
    rb"|\xc2?(?P<c1>[\x80-\x9f])"
    rb"|(?P<cut>" + _CUT_CHARACTER + rb")"
)
_REST_OF_STRING = re.compile(rb"(?P<payload>" + _PAYLOAD + rb")" + _END)
_NOTEWORTHY = re.compile(rb"[\x05\x1b\x80-\x9f\xc2-\xf4]")
_STRINGS_8BIT = {b"\x9d": b"]", b"\x90": b"P", b"\x9f": b"_"}

# CSI questions by final, as (prefix and intermediates) that ask: device attributes, status, modes, window,
# colours and fonts, keyboard, version, checksums, locator, presentation, graphics.
_CSI_QUESTIONS = {
    b"c": (b"", b"?", b">", b"="),
    b"n": (b"", b"?"),
    b"p": (b"$", b"?$", b"+"),
    b"q": (b">",),
    b"u": (b"?", b"$", b"&"),
    b"w": (b"$",),
    b"x": (b"", b"+"),
    b"y": (b"*", b"#"),
    b"m": (b"?",),
    b"g": (b"?",),
    b"S": (b"?",),
    b"R": (b"#",),
    b"|": (b"#", b"'", b","),
}
_WINDOW_REPORTS = {11, 13, 14, 15, 16, 18, 19, 20, 21}
# Modes that make a terminal speak: of its size (at once), and of mouse, focus and colours (later).
_SIZE_REPORTS = {2048}
_LATER_REPORTS = {9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2031}
# OSC with texts in which a question mark is none, and those that ask without one.
_OSC_TEXTS = {b"0", b"1", b"2", b"7", b"8", b"9", b"133", b"633", b"777", b"1337"}
_OSC_ASKS = re.compile(
    rb"(?:60|61|99;(?:[^;]*:)?p=(?:\?|alive)|1337;(?:Report|Request|Capabilities|Copy=\?)).*", re.DOTALL
)
_DCS_ASKS = (b"$q", b"+q", b"+Q", b"tmux;", b"\x1b")
#: So much of a string tells whether it is one of those.
_TELLING_BYTES = max(map(len, _DCS_ASKS))
_QUIET_GRAPHICS = re.compile(rb"G(?:[^;]*,)?q=2[,;]|G(?:[^;]*,)?q=2\Z")


class QuestionFilter:
    """Takes questions out of output that is not, or no longer, between its process and this terminal: the
    answers would be typed into the process again, or into the shell that this command was called from."""

    def __init__(self, *, live: bool = False) -> None:
        """live: what follows is between the two, so that modes such as that of the mouse are to be set."""
        self._silenced = _SIZE_REPORTS if live else _SIZE_REPORTS | _LATER_REPORTS
        self._held = b""
        self._inside: bool | None = None  # a string that is not held back; whether it is shown

    def feed(self, data: bytes) -> bytes:
        """What may be shown now; the beginning of what may be a question waits for its end."""
        if not self._held and self._inside is None and _NOTEWORTHY.search(data) is None:
            return data
        data = self._held + data.replace(_ANSWERBACK, b"")
        self._held = b""
        shown, position = self._through_string(data)
        while match := _TOKEN.search(data, position):
            shown.append(data[position : match.start()])
            position = match.end()
            if position == len(data) and not _complete(match):
                self._hold(match, shown)
            else:
                shown.append(self._judged(match))
        shown.append(data[position:])
        return b"".join(shown)

    def rest(self) -> bytes:
        """What was held back, at the end of the replay: what follows completes it."""
        held, self._held = self._held, b""
        return held

    def _through_string(self, data: bytes) -> tuple[list[bytes], int]:
        if self._inside is None or (match := _REST_OF_STRING.match(data)) is None:
            return [], 0
        end = match["end"] or b""
        if match.end() == len(data) and not _ends(end):
            self._held = end
            return [match["payload"] if self._inside else b""], len(data)
        shown, self._inside = self._inside, None
        return [match[0] if shown else b""], match.end()

    def _hold(self, match: re.Match[bytes], shown: list[bytes]) -> None:
        """At the end of a chunk."""
        if len(match[0]) <= LONGEST_HELD_BYTES:
            self._held = match[0]
        elif match["payload"] is not None:
            self._held = match["end"] or b""
            self._inside = not _may_ask(_kind(match), match["payload"])
            shown.append(match[0][: len(match[0]) - len(self._held)] if self._inside else b"")

    def _judged(self, match: re.Match[bytes]) -> bytes:
        if match["plain"] is not None:
            return match[0]
        if match["final"] is not None:
            return self._judged_csi(match)
        if match["payload"] is not None:
            kept = _ends(match["end"]) and not _asks(_kind(match), match["payload"])
        elif match["escape"] is not None:
            kept = match["escape"] != b"Z"
        else:
            kept = match["c1"] not in (None, b"\x9a")
        return match[0] if kept else b""

    def _judged_csi(self, match: re.Match[bytes]) -> bytes:
        final, body = match["final"], re.sub(rb"[" + _C0 + rb"]", b"", match["csi"])
        marks, numbers = re.sub(rb"[0-9:;]", b"", body), [*map(_number, re.findall(rb"[0-9]+", body))]
        if marks in _CSI_QUESTIONS.get(final, ()):
            return b""
        if final == b"t" and not marks and numbers[:1] and numbers[0] in _WINDOW_REPORTS:
            return b""
        if final == b"h" and marks == b"?" and not self._silenced.isdisjoint(numbers):
            left = [b"%d" % number for number in numbers if number not in self._silenced]
            return b"\x1b[?" + b";".join(left) + b"h" if left else b""
        return match[0]


class Quiet:
    """Takes questions out of what goes to terminals, and lets pass what goes into files and pipes.

    Two streams that share a terminal are one to it: half a question in each would be a whole one.
    """

    def __init__(self, *terminals: Stream) -> None:
        """terminals: the streams that go to one."""
        shared = QuestionFilter()
        self._filters = dict.fromkeys(terminals, shared)

    def feed(self, stream: Stream, data: bytes) -> bytes:
        """What may be shown of it now. What is still held at the end is not to be shown: the next prompt
        would complete it."""
        questions = self._filters.get(stream)
        return data if questions is None else questions.feed(data)


def _complete(match: re.Match[bytes]) -> bool:
    """Whether a token at the end of a chunk is one without what follows."""
    if match["payload"] is not None:
        return _ends(match["end"])
    return any(match[group] is not None for group in ("plain", "final", "escape", "c1"))


def _ends(end: bytes | None) -> bool:
    return end in (b"\x07", b"\x1b\\", b"\xc2\x9c", b"\x9c")


def _number(digits: bytes) -> int:
    return int(digits[-8:])


def _kind(match: re.Match[bytes]) -> bytes:
    return match["string"] or _STRINGS_8BIT.get(match["string8"], b"")


def _asks_osc(payload: bytes) -> bool:
    number, _, fields = payload.partition(b";")
    if _OSC_ASKS.fullmatch(payload):
        return True
    asked = any(field == b"?" or field.endswith(b"=?") for field in fields.split(b";"))
    return asked and number.lstrip(b"0") not in _OSC_TEXTS - {b"0"} and number != b"0"


def _asks_graphics(payload: bytes) -> bool:
    return payload.startswith(b"G") and not _QUIET_GRAPHICS.match(payload)


_ASKS: dict[bytes, Callable[[bytes], bool]] = {
    b"]": _asks_osc,
    b"P": lambda payload: payload.startswith(_DCS_ASKS),
    b"_": _asks_graphics,
}


def _asks(kind: bytes, payload: bytes) -> bool:
    return kind in _ASKS and _ASKS[kind](_bare(payload))


def _may_ask(kind: bytes, beginning: bytes) -> bool:
    """Whether a string that begins so may still turn out to be a question."""
    if kind == b"]":
        return _asks(kind, beginning) or _bare(beginning).partition(b";")[0] not in _OSC_TEXTS
    # Thousands of controls before it tell nothing about the string.
    return (kind in _ASKS and len(_bare(beginning)) < _TELLING_BYTES) or _asks(kind, beginning)


def _bare(payload: bytes) -> bytes:
    """Without the controls in a string, which terminals pass over: they must not hide how it begins."""
    return payload.translate(None, _PASSED_OVER)
