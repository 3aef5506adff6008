"""Detach keys: their notation, and their recognition in a stream of typed bytes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

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

    Keys that may be its beginning are held back: a Ctrl-P that reached the shell would leave the last command
    on its line. The next key decides about them; `release` lets them through before, so that a lone Ctrl-P
    works as ever, and the sequence is still found when its rest follows.
    """

    sequence: bytes
    _matched: int = 0  # so many keys of the sequence have been typed
    _released: int = 0  # so many of these have been passed on

    @property
    def held(self) -> bytes:
        """The keys that wait for the next one."""
        return self.sequence[self._released : self._matched]

    def release(self) -> bytes:
        """The held keys, to be passed on now."""
        held, self._released = self.held, self._matched
        return held

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """The bytes for the process, and whether the sequence is complete; what follows it is dropped."""
        passed = bytearray()
        for byte in typed:
            self._step(byte, passed)
            if self.sequence and self._matched == len(self.sequence):
                self._matched = self._released = 0
                return bytes(passed), True
        return bytes(passed), False

    def _step(self, byte: int, passed: bytearray) -> None:
        while self._matched and self.sequence[self._matched] != byte:
            self._fall_back(_border(self.sequence[: self._matched]), passed)
        if self.sequence and self.sequence[self._matched] == byte:
            self._matched += 1
        else:
            passed.append(byte)

    def _fall_back(self, matched: int, passed: bytearray) -> None:
        """Fewer keys than thought may be the beginning: the first ones are not and go on."""
        leaving = self._matched - matched
        passed += self.sequence[self._released : leaving]
        self._matched, self._released = matched, max(0, self._released - leaving)


def _border(text: bytes) -> int:
    """The length of the longest proper prefix of `text` that is also its suffix (Knuth, Morris, Pratt)."""
    return next((size for size in range(len(text) - 1, 0, -1) if text.endswith(text[:size])), 0)
