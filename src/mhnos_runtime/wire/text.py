"""Text over a byte log, in pieces, in both directions. Knows bytes; must not know cursors or processes."""

from __future__ import annotations

import codecs

from mhnos_runtime.wire import surrogates
from mhnos_runtime.wire.messages import Stream

CARRY_BYTES = 3  # an incomplete UTF-8 character has at most so many bytes: what `restore` needs to see

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TextDecoder:
    """Decodes the streams of one cursor; what it gives joins to what decoding the whole would give."""

    def __init__(self) -> None:
        self._decoders: dict[Stream, codecs.IncrementalDecoder] = {
            "stdout": _new_decoder("replace"),
            "stderr": _new_decoder("replace"),
        }

    def feed(self, stream: Stream, data: bytes | bytearray | memoryview) -> str:
        """The characters that `data` completes; an incomplete one waits. Invalid bytes become U+FFFD."""
        return self._decoders[stream].decode(data)

    def flush(self, stream: Stream) -> str:
        """The end of a stream, or a gap in it: U+FFFD for what stays incomplete, else ""."""
        return self._decoders[stream].decode(b"", final=True)

    def restore(self, stream: Stream, tail: bytes | bytearray | memoryview) -> None:
        """Start in the middle: `tail` is the last CARRY_BYTES or more of the stream before what is fed next.

        A lead byte always begins a character, so what an earlier part of the stream held does not matter.
        """
        self._decoders[stream].reset()
        self.feed(stream, tail)


class SurrogateJoiner:
    """Text of `write` requests to UTF-8, for one process; holds at most one character between two of them."""

    def __init__(self) -> None:
        self._high = ""

    def feed(self, text: str) -> bytes:
        """UTF-8 of what is complete. A high surrogate at the end waits; other lone ones become U+FFFD."""
        text = self._high + text
        self._high = text[-1:] if surrogates.is_high(text[-1:]) else ""
        return surrogates.to_utf8(text[:-1] if self._high else text)

    def flush(self) -> bytes:
        """The end of the input: U+FFFD for a half that never met its other one."""
        text, self._high = self._high, ""
        return surrogates.to_utf8(text)


class PipeInput:
    """Line ends for a process on pipes: Enter is CR in 1.0, a program that reads lines waits for LF."""

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """`data` with CR and CRLF as LF. CR is LF at once; an LF that begins the next write belongs to it."""
        if not data:
            return data
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
