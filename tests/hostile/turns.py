"""A server's connection in this process, on a transport of the test's own, and what each turn of the event
loop costs the CPU. Knows frames and one runtime without a supervisor, not what is sent."""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from mhnos_runtime import config
from mhnos_runtime.errors import StartFailed
from mhnos_runtime.launch import ExitRecord, Hello, ProcessDescriptors, ProcessRecord
from mhnos_runtime.output import LogWriter
from mhnos_runtime.process.facts import UNKNOWN, ProcessFacts
from mhnos_runtime.sandbox import Allowed, HostFacts, Isolation, Policy, Sandbox
from mhnos_runtime.server.auth.grants import EVERYTHING
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.websocket import WebSocket
from mhnos_runtime.server.main import build
from mhnos_runtime.wire import messages as m

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
#: What one read of a socket gives (libuv).
READ_BYTES = 64 << 10
#: Processes that are kept: as many as a server with default settings has at most.
RUNNING, ENDED = 50, 256
FIRST_PID = 1000
#: Until the client leaves, whatever is still to be answered: by then each kind of turn has come.
PATIENCE_SECONDS = 0.5
_MARK = b"the last one"


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """As a client sends it. A mask of zeros is a valid one, and leaves the payload as it is."""
    size = len(payload)
    first = opcode | (0x80 if final else 0)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + bytes(4) + payload


class Link:
    """A supervisor that starts nothing and needs to be told nothing."""

    waiting = 0
    congested = False

    async def spawn(self, *_: object) -> int:
        raise StartFailed("there is no supervisor")

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_more: None


class Defects:
    """In place of a log: what a connection has reported, which is nothing as long as all is well."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def exception(self, message: str, **_fields: object) -> None:
        self.found.append(f"{message}: {traceback.format_exc()}")

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_more: None


class Transport:
    """Takes everything at once, and forgets it."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self.answered = asyncio.Event()
        self.taken = asyncio.Event()
        self.closed = False
        self.protocol: Any = self

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol
        self.taken.set()

    def set_write_buffer_limits(self, _high: int) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    def write(self, data: bytes) -> None:
        if _MARK in data[:200]:
            self.answered.set()
        if data[0] & 15 == CLOSE:
            self.abort()

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        pass

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.answered.set()
            self.reading.set()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    close = abort

    def connection_lost(self, _error: object) -> None:
        """As the HTTP side, whose connection it was before."""


class Scene:
    """One runtime with all the processes that it may have, whose command lines are as long as they may be."""

    def __init__(self, root: Path) -> None:
        self.defects = Defects()
        asyncio.get_running_loop().set_exception_handler(self._raised)
        workspace = root / "workspace"
        workspace.mkdir()
        _lay_out(workspace)
        flags = {"workspace": str(workspace), "state_dir": str(root / "state"), "sandbox": "none"}
        settings, _ = config.load(flags, {"HOME": str(root)})
        allowed = Allowed(
            Sandbox(Policy("none"), HostFacts(), str(workspace)), "/no/engines", 10**6, 1 << 62, 10**9, 10**9
        )
        path = os.environ["PATH"]
        hello = Hello("s", 0, allowed.to_dict(), "", None, path, node="", no_node="", listeners=())
        self.domains = build(hello, settings, cast(Any, Link()), gone=lambda: None)
        self._add_processes(root)

    def _add_processes(self, root: Path) -> None:
        writer = LogWriter.create(root / "log", 1 << 20)
        for _ in range(40):
            writer.append(b"\x01\xf0\x9f\x98" * 4096, 1, 1)
        try:
            for number in range(RUNNING + ENDED):
                ended = ExitRecord(0, None, "exit", "test", 1, 1, 1, 1, 1) if number >= RUNNING else None
                record = ProcessRecord(
                    FIRST_PID + number, os.getpid(), 1, None, _facts(), stdin_open=False, exit=ended
                )
                self.domains.reports.on_process(record, ProcessDescriptors(os.dup(writer.fd)), new=True)
        finally:
            writer.close()

    def _raised(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trace = "" if error is None else "".join(traceback.format_exception(error))
        self.defects.found.append(f"{context['message']}: {trace}")

    def close(self) -> None:
        self.domains.close()

    async def cost(self, data: bytes, newer: bool) -> float:
        """Seconds of CPU of the most expensive turn while a new connection sends this and leaves."""
        transport = Transport()
        socket = WebSocket(cast(Any, transport), m.MAX_MESSAGE_BYTES, 1000.0)
        connection = Connection(self.domains.connections, socket, newer, EVERYTHING, cast(Any, self.defects))
        hello = m.Connected(m.ServerConfig("/workspace", "none", False))
        running = asyncio.create_task(connection.run(hello))
        await transport.taken.wait()
        with measured() as turns:
            data += frame(TEXT, b'{"type":"ping","id":"' + _MARK + b'"}')
            for start in range(0, len(data), READ_BYTES):
                with suppress(TimeoutError):
                    await asyncio.wait_for(transport.reading.wait(), PATIENCE_SECONDS)
                if transport.closed or not transport.reading.is_set():
                    break
                asyncio.get_running_loop().call_soon(
                    transport.protocol.data_received, data[start : start + READ_BYTES]
                )
                await asyncio.sleep(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(transport.answered.wait(), PATIENCE_SECONDS)
            transport.abort()
            await running
        return max(turns)


@contextmanager
def measured() -> Iterator[list[float]]:
    """CPU seconds of each callback of the event loop inside: of its thread, whatever else the machine does.
    What the tests themselves have made is no work for the garbage collector meanwhile."""
    run, turns = asyncio.Handle._run, [0.0]

    def timed(self: asyncio.Handle) -> None:
        begin = time.thread_time()
        run(self)
        turns.append(time.thread_time() - begin)

    gc.collect()
    gc.freeze()
    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield turns
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.unfreeze()


def _lay_out(workspace: Path) -> None:
    """Files, folders, and links that take as many steps to resolve as there may be."""
    (workspace / "a").mkdir()
    (workspace / "a" / "b.js").write_text("x")
    folder = workspace
    for _ in range(40):
        folder = folder / "d"
        folder.mkdir()
    down = "d/" * 40
    for number in range(38):
        target = (down + "../" * 40) * 15 + (f"l{number + 1}" if number < 37 else "a/b.js")
        (workspace / f"l{number}").symlink_to(target[-4000:].lstrip("./") if len(target) > 4000 else target)
    (workspace / "l0.js").symlink_to("l0")


def _facts() -> dict[str, Any]:
    """What a spawn with 160 KiB of control characters, each six bytes in JSON, leaves."""
    texts: Any = {"command": "\x01" * 40_000, "args": ("\x01" * 100,) * 1200, "name": "n" * 1000}
    isolation = Isolation("none", "host", 0, (), 0, False, {}, True)
    facts: ProcessFacts = msgspec.structs.replace(UNKNOWN, kind="shell", isolation=isolation, **texts)
    return facts.to_plain()
