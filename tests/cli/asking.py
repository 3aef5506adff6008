"""A terminal that notes what it would answer: the state machine of DEC's terminals
(vt100.net/emu/dec_ansi_parser) in UTF-8, byte by byte, apart from the filter's way of reading. Knows only the
plainest questions."""

from __future__ import annotations

from collections.abc import Iterator

GROUND, ESCAPE, INTERMEDIATE, CSI = "ground", "escape", "intermediate", "csi"
STRING, STRING_ESCAPE = "string", "string escape"
_C1 = {0x9B: "[", 0x9D: "]", 0x90: "P", 0x9F: "_", 0x9E: "^", 0x98: "X", 0x9A: "Z", 0x9C: "\\"}


def characters(data: bytes) -> Iterator[int]:
    """Code points; a byte that begins none stands for itself, as with a terminal that knows C1 as bytes
    too."""
    position = 0
    while position < len(data):
        for size in (1, 2, 3, 4):
            try:
                yield ord(data[position : position + size].decode())
            except (UnicodeDecodeError, TypeError):
                continue
            position += size
            break
        else:
            yield data[position]
            position += 1


class Terminal:
    """lenient: characters beyond ASCII do not end a sequence, and ESC does not end a string."""

    def __init__(self, *, lenient: bool) -> None:
        self.asked: list[str] = []
        self._lenient = lenient
        self._state = GROUND
        self._text = ""

    def show(self, data: bytes) -> None:
        for code in characters(data):
            self._take(code)

    def _take(self, code: int) -> None:
        if code == 0x05:
            self.asked.append("ENQ")
        elif code in (0x18, 0x1A):
            self._state = GROUND
        elif code == 0x1B:
            self._state = STRING_ESCAPE if self._state == STRING else ESCAPE
        elif 0x80 <= code <= 0x9F:
            self._introduce(_C1.get(code, "D"))
        elif code < 0x20 or code == 0x7F:
            if code == 0x07 and self._state == STRING:
                self._end_string()
        else:
            self._print(chr(code))

    def _introduce(self, char: str) -> None:
        before, self._state = self._state, GROUND
        if char == "\\" and before in (STRING, STRING_ESCAPE):
            self._end_string()
        elif char == "[":
            self._state, self._text = CSI, ""
        elif char in "]P_^X":
            self._state, self._text = STRING, char
        elif char == "Z":
            self.asked.append("DECID")

    def _print(self, char: str) -> None:
        if self._state == STRING:
            self._text += char
        elif self._state == STRING_ESCAPE and char != "\\" and self._lenient and char not in "[]PZ":
            self._state = STRING
        elif self._state in (ESCAPE, STRING_ESCAPE):
            if " " <= char <= "/":
                self._state = INTERMEDIATE
            else:
                self._introduce(char)
        elif self._state == INTERMEDIATE:
            self._state = INTERMEDIATE if char <= "/" else GROUND
        elif self._state == CSI:
            if "@" <= char <= "~":
                self._state = GROUND
                self._dispatch(self._text + char)
            elif char < "@":
                self._text += char
            elif not self._lenient:
                self._state = GROUND

    def _dispatch(self, sequence: str) -> None:
        kinds = (sequence[-1], sequence.strip("0123456789;:" + sequence[-1]))
        if kinds in (("n", ""), ("n", "?"), ("c", ""), ("c", ">"), ("p", "$"), ("q", ">"), ("u", "?")):
            self.asked.append(sequence)
        if sequence in ("18t", "14t"):
            self.asked.append(sequence)

    def _end_string(self) -> None:
        self._state = GROUND
        if self._text.startswith("]11;") and "?" in self._text.split(";"):
            self.asked.append(self._text)
        if self._text.startswith(("P$q", "P+q")):
            self.asked.append(self._text)
