"""Values and bytes that nobody expects, by the dice. Knows JSON; nothing of what it is for."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

ODD: list[Callable[[random.Random], Any]] = [
    lambda dice: dice.choice([None, True, False, "", [], {}, "\0", "\ud800", "é", "\x1b[31m\r\n", "."]),
    lambda dice: dice.choice([-1, 0, 1, 9, 64, 65, 255, 256, 65535, 65536, 10**12, 10**30, -(10**30)]),
    lambda dice: 2 ** dice.choice([15, 16, 31, 32, 53, 63, 64]) + dice.randint(-1, 1),
    lambda dice: dice.choice([0.0, -0.0, 0.5, 1e308, float("inf"), float("nan")]),
    lambda dice: dice.randrange(900, 1300),
    lambda dice: dice.choice("\0\1\x1f\"\\\x7f\xff\u2028\ud800\U0001f600") * dice.choice([1, 99, 9999]),
    lambda dice: "".join(chr(dice.randrange(1, 0x500)) for _ in range(dice.randrange(30))),
    lambda dice: nested(dice.choice([1, 5, 15, 16, 17, 60, 400, 900]), dice.random() < 0.5),
    lambda dice: [dice.randrange(300)] * dice.choice([1, 2, 5, 1000]),
    lambda dice: {str(number): number for number in range(dice.choice([1, 3, 2000]))},
]  # fmt: skip
#: Of JSON, and what breaks it.
TOKENS = [
    b'"',
    *(bytes([byte]) for byte in b"{}[],:-"),
    b"null",
    b"1e999",
    b"\\u",
    b"\\ud83d",
    b"\x00",
    b"9" * 30,
]
PIECES = [*TOKENS, b"\xff", b"9" * 5000, b"[" * 100_000, b'{"a":' * 20_000, b"true", b"\n"]


def nested(levels: int, lists: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if lists else {"a": value}
    return value


def value(dice: random.Random) -> Any:
    return dice.choice(ODD)(dice)


def mutated(dice: random.Random, document: Any) -> Any:
    """A copy in which one place is another: a value, a key, or one of them too few or too many."""
    document = json.loads(json.dumps(document))
    places = _places(document)
    if not places:
        return value(dice)
    holder, key = dice.choice(places)
    match dice.randrange(8):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(value(dice))[:50]] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.insert(key, value(dice))
        case 3 if isinstance(holder, list):
            del holder[key]
        case _:
            holder[key] = value(dice)
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) inside."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    for each in waiting:
        keys = each if isinstance(each, dict) else range(len(each))
        found += [(each, key) for key in keys]
        waiting += [each[key] for key in keys if isinstance(each[key], dict | list) and each[key]]
    return found


def garbled(dice: random.Random, data: bytes) -> bytes:
    """Bytes with a piece of something in them, flipped, doubled, or cut off."""
    at = dice.randrange(len(data) + 1)
    match dice.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + dice.choice(PIECES) + data[at:]
        case 2:
            return data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at + dice.randrange(9) :]
        case 3:
            return data[:at] + data[at + 1 :]
        case 4:
            return data + data[at:]
        case _:
            return dice.randbytes(dice.choice([0, 1, 4, 5, 6, 100, 9000]))
