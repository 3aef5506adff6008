"""A search for the frame that costs a turn of the event loop most: it keeps the slowest, changes them, and
lets them grow up to what is allowed. A process of its own, without the tests' guards in every call. Knows
messages.

python -m tests.hostile.frames SECONDS SEED
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mhnos_runtime.wire.websocket import SMALL_MESSAGE_BYTES
from tests.hostile.turns import BINARY, CONTINUATION, FIRST_PID, PING, PONG, TEXT, Scene, frame

#: CPU seconds of a turn that no frame may take, on a machine that does the reference in REFERENCE_SECONDS. A
#: loaded one, whose caches are full of something else, needs longer for both.
LIMIT_SECONDS = 0.05
REFERENCE_SECONDS = 0.0075
#: What the shortest search takes: some fifty of the frames that are known, in another order each time.
LEAST_SECONDS = 8.0
#: How many of the slowest are kept and changed.
KEPT = 12
#: Of a message that only a push may be.
LARGE_BYTES = 3 << 20
FLOOD_BYTES = 192 << 10

PID = str(FIRST_PID).encode()
#: Beginnings and ends of messages, around a list or an object of many small things.
AROUND: list[tuple[bytes, bytes]] = [
    (b'{"type":[', b"]}"),
    (b'{"type":{', b"}}"),
    (b'{"type":"', b'"}'),
    (b'{"type":', b"}"),
    (b'{"type":"ping","id":[', b"]}"),
    (b'{"type":"ping","id":', b"}"),
    (b'{"type":"ping",', b"}"),
    (b"[", b"]"),
    (b"{", b"}"),
    (b"", b""),
    (b'{"type":"spawn","processType":"', b'"}'),
    (b'{"type":"spawn","processType":"shell","args":[', b"]}"),
    (b'{"type":"spawn","processType":"shell","key":"k","command":"', b'"}'),
    (b'{"type":"spawn","processType":"python","command":"/l0","args":[', b"]}"),
    (b'{"type":"plan","processType":"shell","args":[', b"]}"),
    (b'{"type":"plan","processType":"shell","options":{"env":{', b"}}}"),
    (b'{"type":"plan","processType":"shell","options":{"cwd":"', b'"}}'),
    (b'{"type":"plan","processType":"shell","ports":{', b"}}"),
    (b'{"type":"plan","processType":"shell","limits":{"tasks":', b"}}"),
    (b'{"type":"plan","processType":"shell","name":"', b'"}'),
    (b'{"type":"workerConfig","command":"a/b.js","worker":{"modules":[', b"]}}"),
    (b'{"type":"workerConfig","command":"l0.js","worker":{"modules":[', b"]}}"),
    (b'{"type":"workerConfig","command":"a/b.js","worker":{"bindings":{', b"}}}"),
    (b'{"type":"workerConfig","command":"a/b.js","worker":{"environment":[', b"]}}"),
    (b'{"type":"workerConfig","command":"', b'"}'),
    (b'{"type":"write","pid":' + PID + b',"data":"', b'"}'),
    (b'{"type":"kill","pid":' + PID + b',"signal":"', b'"}'),
    (b'{"type":"attach","pid":', b"}"),
    (b'{"type":"openInput","pid":' + PID + b',"client":"', b'"}'),
    (b'{"type":"search","pattern":"', b'"}'),
    (b'{"type":"search","pattern":"a","processes":[', b"]}"),
    (b'{"type":"timeline","pid":', b"}"),
    (b'{"type":"inspect","pid":"', b'"}'),
    (b'{"type":"rename","pid":' + PID + b',"name":"', b'"}'),
    (b'{"type":"remove","pid":', b"}"),
    (b'{"type":"spawn","processType":"shell","within":"', b'"}'),
    (b'{"type":"attach","pid":' + PID + b',"since":', b"}"),
    (b'{"type":"ack","pid":' + PID + b',"offset":', b"}"),
    (b'{"type":"listFiles","path":"', b'"}'),
    (b'{"type":"emptyTrash","items":[', b"]}"),
    (b'{"type":"searchFiles","pattern":"', b'"}'),
    (b'{"type":"watchFiles","ignore":[', b"]}"),
    (b'{"type":"fsync","operation":"', b'"}'),
    (b'{"type":"fsync","operation":"push","id":1,"files":[', b"]}"),
    (b'{"type":"fsync","operation":"push","files":[{"path":"x","content":[', b"]}]}"),
    (b'{"type":"fsync","operation":"push","files":[{"path":"x","content":"', b'"}]}'),
    (b'{"type":"fsync","operation":"push","files":[{"path":"/a","kind":"directory","content":{', b"}}]}"),
    (b'{"type":"fsync","operation":"push","files":[{"mtime":0.', b"}]}"),
]
UNITS: list[bytes] = [
    b"1", b"9", b"0", b"255", b"1e308", b'""', b'"x"', b"null", b"[]", b"{}", b"[[[[]]]]", b"[", b"{",
    b'{"a":',
    b"\\u0001", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\n", b"\\\\", b'\\"', b"\\", b'"\\ud800"',
    b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"x", b" ", b'"a":1', b'"\\ud800":1', b'{"path":""}',
    b'{"path":"/a/x"}', b'{"path":"l0"}', b'{"path":"\\ud800"}', b'{"path":"", "mtime":1}', b'"b.js"',
    b'"../l0"', b'"a":[[[[1]]]]', b"/", b"../", b"l0/", b"\x7f", b"e", b".", b"-", b'{"":""}', b"true",
]  # fmt: skip
#: Small messages that are sent many times.
SMALL: list[bytes] = [
    b'{"type":"list","all":true}',
    b'{"type":"list"}',
    b'{"type":"ping"}',
    b'{"type":"status"}',
    b'{"type":"stats","pid":1}',
    b'{"type":"attach","pid":%b}' % PID,
    b'{"type":"attach","pid":%d}' % (FIRST_PID + 100),
    b'{"type":"attach","pid":%b,"tail":9007199254740991}' % PID,
    b'{"type":"detach","pid":%b}' % PID,
    b'{"type":"openInput","pid":%b,"client":"x"}' % PID,
    b'{"type":"plan","processType":"shell"}',
    b'{"type":"plan","processType":"shell","options":{"cwd":"/l0"}}',
    b'{"type":"kill","pid":%b,"signal":"x"}' % PID,
    b'{"type":"credentials","pid":%b}' % PID,
    b'{"type":"inspect","pid":%b}' % PID,
    b'{"type":"rename","pid":%b,"name":"a"}' % PID,
    b'{"type":"subscribe"}',
    b'{"type":"unsubscribe"}',
    b'{"type":"timeline","pid":%b}' % PID,
    b'{"type":"search","pattern":"a","max":1}',
    b'{"type":"ack","pid":%b,"offset":1}' % PID,
    b'{"type":"listFiles","path":"/"}',
    b'{"type":"statFile","path":"/l0"}',
    b'{"type":"watchFiles"}',
    b"{}",
    b"[",
    b"",
]


@dataclass(frozen=True)
class Candidate:
    """One message, with something in it repeated until it has `size` bytes, or many small ones."""

    before: bytes
    unit: bytes
    between: bytes
    after: bytes
    size: int
    numbered: bool = False
    opcode: int = TEXT
    fragment: int = 0
    flood: bool = False

    def wire(self) -> bytes:
        if self.flood:
            one = frame(self.opcode, self.unit)
            return one * max(1, FLOOD_BYTES // len(one))
        payload = self.payload()
        if not self.fragment:
            return frame(self.opcode, payload)
        pieces = [payload[at : at + self.fragment] for at in range(0, len(payload), self.fragment)] or [b""]
        opcodes = [self.opcode, *[CONTINUATION] * (len(pieces) - 1)]
        return b"".join(
            frame(opcode, piece, final=number == len(pieces) - 1)
            for number, (opcode, piece) in enumerate(zip(opcodes, pieces, strict=True))
        )

    def payload(self) -> bytes:
        room = max(0, self.size - len(self.before) - len(self.after))
        if not self.numbered:
            count = room // max(1, len(self.unit) + len(self.between))
            return self.before + self.between.join([self.unit] * count) + self.after
        count = room // (len(self.unit) + len(self.between) + 9)
        return (
            self.before + self.between.join(b'"%06x":%b' % (n, self.unit) for n in range(count)) + self.after
        )

    def __str__(self) -> str:
        if self.flood:
            return f"opcode {self.opcode}, {self.unit!r}, {FLOOD_BYTES} bytes of it"
        shape = f"{self.before!r} + {self.unit!r} between {self.between!r} + {self.after!r}"
        return f"{shape}, {self.size} bytes, numbered {self.numbered}, fragments of {self.fragment or 'all'}"


def first() -> Iterator[Candidate]:
    """What is known to have been slow, or is plain to try: each beginning with what it is made for."""
    lists = (b"1", b'"a"', b'""', b'"\\ud800"', b'{"path":""}', b'"../l0"')
    for before, after in AROUND:
        texts = before.endswith(b'"')
        for unit in (b"\\u0001", b"\\ud800", b"x", b"\\n") if texts else lists:
            yield Candidate(before, unit, b"" if texts else b",", after, SMALL_MESSAGE_BYTES)
        yield Candidate(before, b"0", b",", after, SMALL_MESSAGE_BYTES, numbered=True)
    for unit in SMALL:
        yield Candidate(b"", unit, b"", b"", 0, flood=True)
    for opcode in (PING, PONG, BINARY, CONTINUATION):
        for unit in (b"", b"x" * 125):
            yield Candidate(b"", unit, b"", b"", 0, opcode=opcode, flood=True)
    for fragment in (1, 100, 5000):
        yield Candidate(b'{"type":"', b"x", b"", b'"}', FLOOD_BYTES, fragment=fragment)
    for before, after in AROUND[-5:]:
        for unit in (b"1", b"\\n", b'"a":1', b'{"path":""}'):
            yield Candidate(before, unit, b",", after, LARGE_BYTES)


def other(dice: random.Random) -> Candidate:
    """Anything."""
    before, after = dice.choice(AROUND)
    return Candidate(
        before,
        dice.choice(UNITS),
        dice.choice([b",", b"", b" ", b":", b"\n,"]),
        after,
        dice.choice([SMALL_MESSAGE_BYTES, 1000, 100_000, LARGE_BYTES if b"fsync" in before else 4096]),
        numbered=dice.random() < 0.2,
        opcode=BINARY if dice.random() < 0.05 else TEXT,
        fragment=dice.choice([0, 0, 0, 0, 3000, 70_000]),
        flood=dice.random() < 0.05,
    )


def changed(dice: random.Random, candidate: Candidate) -> Candidate:
    """One that is slow, with one thing else, or larger."""
    before, after = dice.choice(AROUND)
    unit = dice.choice(UNITS)
    return dice.choice(
        [
            replace(candidate, unit=unit),
            replace(candidate, unit=(candidate.unit + unit)[:200]),
            replace(candidate, unit=(unit + candidate.between + candidate.unit)[:200]),
            replace(candidate, before=before, after=after),
            replace(candidate, before=candidate.before + unit),
            replace(candidate, after=unit + candidate.after),
            replace(candidate, between=dice.choice([b",", b"", b" "])),
            replace(candidate, numbered=not candidate.numbered),
            replace(candidate, size=min(candidate.size * 2, SMALL_MESSAGE_BYTES)),
            replace(candidate, fragment=dice.choice([0, 100, 70_000])),
        ]
    )


Slowest = list[tuple[float, Candidate]]


def limit() -> float:
    """LIMIT_SECONDS for this machine at this moment."""
    text = b"[" + b'"xyz",' * 150_000 + b"1]"
    taken = []
    for _ in range(5):
        begin = time.thread_time()
        msgspec.json.decode(text)
        taken.append(time.thread_time() - begin)
    return LIMIT_SECONDS * max(1.0, sorted(taken)[2] / REFERENCE_SECONDS)


async def cost(scene: Scene, candidate: Candidate) -> float:
    """What is slow is tried again: the smallest figure is the frame's own, and not the machine's.

    In seconds of a machine that is as quick as LIMIT_SECONDS is for.
    """
    newer = candidate.opcode == BINARY
    seconds = await scene.cost(candidate.wire(), newer)
    for _ in range(3):
        if seconds > LIMIT_SECONDS / 2:
            seconds = min(seconds, await scene.cost(candidate.wire(), newer))
    return seconds * LIMIT_SECONDS / limit() if seconds > LIMIT_SECONDS / 2 else seconds


def candidates(dice: random.Random, slowest: Slowest) -> Iterator[Candidate]:
    """First those that are known, then changes of the slowest, and now and then anything."""
    known = list(first())
    dice.shuffle(known)
    yield from known
    while True:
        yield changed(dice, dice.choice(slowest)[1]) if dice.random() < 0.7 else other(dice)


async def search(seconds: float, seed: int) -> int:
    """Print the slowest; 1 if one of them is too slow, or the server has a defect."""
    dice, slowest, tried = random.Random(seed), Slowest(), 0
    with tempfile.TemporaryDirectory() as root:
        scene = Scene(Path(root))
        until = time.monotonic() + max(seconds, LEAST_SECONDS)
        for candidate in candidates(dice, slowest):
            slowest.append((await cost(scene, candidate), candidate))
            slowest[:] = sorted(set(slowest), key=lambda one: -one[0])[:KEPT]
            tried += 1
            if slowest[0][0] > LIMIT_SECONDS or scene.defects.found or time.monotonic() >= until:
                break
        scene.close()
    print(f"seed {seed}, {tried} frames; CPU of the worst turn:")
    for one, candidate in slowest:
        print(f"{one * 1000:7.1f} ms  {candidate}")
    print(*scene.defects.found, sep="\n")
    return int(slowest[0][0] > LIMIT_SECONDS or bool(scene.defects.found))


if __name__ == "__main__":
    sys.exit(asyncio.run(search(float(sys.argv[1]), int(sys.argv[2]))))
