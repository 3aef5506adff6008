"""Detach keys: their notation, and their recognition in a stream of typed bytes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"  # docker's, so that fingers need not learn others
_CONTROL_SYMBOLS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"  # in the order of their control codes 0..31


def parse_keys(notation: str) -> bytes:
    """The bytes of keys like "ctrl-p,ctrl-q" or "ctrl-],x"; "" and "none" mean no keys.

    Raises ValueError that names the key which is not understood.
    """
    if notation in ("", "none"):
        return b""
    return bytes(_parse_key(key) for key in notation.split(","))


def _parse_key(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    symbol = key.lower().removeprefix("ctrl-")
    if key.lower().startswith("ctrl-") and len(symbol) == 1 and symbol in _CONTROL_SYMBOLS:
        return _CONTROL_SYMBOLS.index(symbol)
    raise ValueError(
        f"{key!r} is not a key: expected one ASCII character, or ctrl- and a letter or one of @[\\]^_"
    )


@dataclass(slots=True)
class DetachKeys:
    """Finds the sequence in what is typed, however it is split.

    Every key but the last is passed on at once: holding a first ctrl-p back until the next key is typed would
    make it useless in shells and editors. So the process sees the beginning of the sequence, never its end.
    """

    sequence: bytes
    _matched: int = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """The bytes for the process, and whether the sequence is complete; what follows it is dropped."""
        for index, byte in enumerate(typed):
            if self._step(byte):
                return typed[:index], True
        return typed, False

    def _step(self, byte: int) -> bool:
        if not self.sequence:
            return False
        while self._matched and self.sequence[self._matched] != byte:
            self._matched = _border(self.sequence[: self._matched])
        if self.sequence[self._matched] == byte:
            self._matched += 1
        if self._matched == len(self.sequence):
            self._matched = 0
            return True
        return False


def _border(text: bytes) -> int:
    """The length of the longest proper prefix of `text` that is also its suffix (Knuth, Morris, Pratt)."""
    return next((size for size in range(len(text) - 1, 0, -1) if text.endswith(text[:size])), 0)
