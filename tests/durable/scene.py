"""What the tests of faults share: servers with other constants, programs that can be checked, followers.

Knows the client and the command line; not what the server does inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from mhnos_runtime.client import Backoff, ClientProcess, InputUncertain, Output, Runtime, connect
from mhnos_runtime.client.errors import ConnectFailed
from mhnos_runtime.testing import TestServer

MIB = 1 << 20
BLOCK_BYTES = 64 * 1024
#: seconds; what must come comes long before, also on a machine that is busy
PATIENCE_S = 40.0

# Writes blocks, each another one, in pieces of any size; leaves the SHA-256 of what it wrote in a file.
WRITER = f"""
import hashlib, os, random, sys
name, seed, blocks = sys.argv[1], sys.argv[2], int(sys.argv[3])
dice, total = random.Random(seed), hashlib.sha256()
os.read(0, 1)
for number in range(blocks):
    data = hashlib.shake_128(f"{{seed}}.{{number}}".encode()).digest({BLOCK_BYTES})
    total.update(data)
    while data:
        data = data[os.write(1, data[: dice.randrange(1, {BLOCK_BYTES})]):]
with open(name, "w") as file: file.write(total.hexdigest())
"""

# Appends every byte that it reads to a file, until it has read the last of them.
READER = """
import os, sys, tty
name, end = sys.argv[1], sys.argv[2].encode()
if os.isatty(0): tty.setraw(0)
with open(name, "ab", 0) as file:
    os.write(1, b"ready\\n")
    seen = b""
    while not seen.endswith(end):
        data = os.read(0, 65536)
        if not data: break
        file.write(data)
        seen = (seen + data)[-100:]
os.write(1, b"done\\n")
"""


def expected_sha(seed: str, blocks: int) -> str:
    """Of what WRITER writes; to be made once the event loop has nothing else to do."""
    total = hashlib.sha256()
    for number in range(blocks):
        total.update(hashlib.shake_128(f"{seed}.{number}".encode()).digest(BLOCK_BYTES))
    return total.hexdigest()


def server_in(
    directory: Path, *flags: str, patched: Mapping[str, Mapping[str, object]] | None = None
) -> TestServer:
    """patched: other values for constants, by module."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    customs = directory / "customs"
    customs.mkdir(exist_ok=True)
    patch(directory, patched or {})
    places = os.pathsep.join(filter(None, (str(customs), os.environ.get("PYTHONPATH"))))
    return TestServer(directory, *flags, environment={"PATH": path, "PYTHONPATH": places})


def patch(directory: Path, values: Mapping[str, Mapping[str, object]]) -> None:
    """What each Python of this server does first, from now on (see site in the standard library)."""
    lines = [
        f"import {module}\n{module}.{name} = {value!r}\n"
        for module, names in values.items()
        for name, value in names.items()
    ]
    (directory / "customs" / "sitecustomize.py").write_text("".join(lines))


#: Servers that are killed again and again are started at once.
NO_PAUSES = {"mhnos_runtime.supervisor.keeper": {"SHORT_LIFE_SECONDS": 0.0}}


@contextlib.asynccontextmanager
async def client_of(server: TestServer, **options: Any) -> AsyncIterator[Runtime]:
    """A client that comes back sooner than a person would notice, and that tries again where its first
    attempt fails: on a busy machine a server takes its while to start, and a bad network may refuse it."""
    url, quick = options.pop("url", server.url), Backoff(first_s=0.01, cap_s=0.2)
    while True:
        runtime = connect(url, server.token, **{"backoff": quick, **options})
        try:
            await runtime.__aenter__()
            break
        except ConnectFailed:
            await asyncio.sleep(0)
    try:
        yield runtime
    finally:
        await runtime.__aexit__(None, None, None)


async def eventually(check: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until something that nobody is told of is so."""
    async with asyncio.timeout(patience_s):
        while not check():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


async def kill_server(server: TestServer) -> None:
    """SIGKILL; returns when another one is there, or nearly."""
    before = server.server_pid()
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: server.server_pid() != before)


def write_script(server: TestServer, name: str, source: str) -> str:
    (server.workspace / name).write_text(source)
    return name


async def spawn_writer(
    runtime: Runtime, server: TestServer, seed: str, blocks: int, **options: Any
) -> ClientProcess:
    """It waits for one byte of input before it begins."""
    write_script(server, "writer.py", WRITER)
    return await runtime.spawn("python", "writer.py", args=[f"sha-{seed}", seed, str(blocks)], **options)


def written_sha(server: TestServer, seed: str) -> str:
    """As WRITER has left it."""
    return (server.workspace / f"sha-{seed}").read_text()


class Assembler:
    """Puts together what a client gives out, and says what it was."""

    def __init__(self, process: ClientProcess, offset: int = 0) -> None:
        self.process = process
        self.offset = offset
        self.sha = hashlib.sha256()

    async def run(self) -> str:
        """Until the process has ended. Fails at a gap, a hole or a repetition."""
        async for item in self.process.output():
            assert isinstance(item, Output), item
            assert item.offset == self.offset
            self.sha.update(item.data)
            self.offset = item.next
        return self.sha.hexdigest()

    async def reached(self, offset: int) -> None:
        await eventually(lambda: self.offset >= offset or self.process.exit is not None)


def check_typed(typed: bytes, received: bytes, uncertain: list[InputUncertain]) -> int:
    """Everything arrived once and in order, but for what was reported; returns how many bytes are missing."""
    ends = [each.from_ for each in uncertain[1:]] + [len(typed)]
    at = uncertain[0].from_ if uncertain else len(typed)
    assert received[:at] == typed[:at]
    for each, end in zip(uncertain, ends, strict=False):
        certain, rest = typed[each.to : end], received[at:]
        # Its beginning may have arrived, and what is certain follows that.
        came = [
            n
            for n in range(each.to - each.from_ + 1)
            if rest.startswith(each.data[:n]) and rest[n : n + len(certain)] == certain
        ]
        assert came, each
        at += came[-1] + len(certain)
    assert at == len(received)
    return len(typed) - len(received)


@contextlib.asynccontextmanager
async def timed(what: str) -> AsyncIterator[None]:
    """Prints how long it took."""
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.1f} s")


def typing(count: int) -> bytes:
    """Bytes of which no stretch of eight comes twice."""
    return b"".join(b"%07d;" % number for number in range(count // 8))
