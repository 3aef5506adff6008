"""The steps of `check`, each one request and what must come back. Knows messages as JSON; prints nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec

from mhnos_runtime.cli import say
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ClientError
from mhnos_runtime.client.opening import refusal
from mhnos_runtime.client.received import unpack
from mhnos_runtime.wire import frames
from mhnos_runtime.wire.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL

Json = dict[str, Any]

STEP_TIMEOUT_S = 10.0  # a third of what clients of protocol 1.0 give a request
PULL_TIMEOUT_S = 120.0  # of a whole workspace: 32 MiB of files, as JSON up to 128 MB, over a slow line
GOODBYE_S = 3.0
LARGE_BYTES = 1 << 20
SCRATCH = ".mhnos-check"


class Result(NamedTuple):
    """One step: what was done with which protocol, whether it went as it must, and what was seen."""

    protocol: str
    step: str
    ok: bool
    took_ms: float
    seen: str


class Unexpected(Exception):
    """Something else came than the protocol says."""


class _File(msgspec.Struct):
    """Its content stays as it came: as numbers in lists, a whole workspace would be a gigabyte."""

    path: str
    kind: str = ""
    content: msgspec.Raw = msgspec.Raw(b"[]")


class _Large(msgspec.Struct):
    """A message of more than LARGE_BYTES, with the fields that such a one can have."""

    type: str
    id: int | None = None
    status: str = ""
    error: str = ""
    files: list[_File] = msgspec.field(default_factory=list)
    data: str = ""
    pid: int = 0


def _message(text: str) -> Json:
    if len(text) <= LARGE_BYTES:
        message: Json = json.loads(text)
        return message
    large: Json = msgspec.to_builtins(msgspec.json.decode(text, type=_Large), builtin_types=(msgspec.Raw,))
    return large


def _content(file: Json) -> bytes:
    content = file["content"]
    return bytes(json.loads(bytes(content)) if isinstance(content, msgspec.Raw) else content)


async def probe(target: Target) -> list[Result]:
    """Every step with each protocol. Raises nothing: what goes wrong is a result."""
    results: list[Result] = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for protocol in ("1.0", "1.1"):
            await _probe_with(session, target, protocol, results)
    return results


async def _probe_with(
    session: aiohttp.ClientSession, target: Target, protocol: str, results: list[Result]
) -> None:
    steps = Steps(session, target, protocol == "1.1")
    try:
        for name, step in steps.all():
            results.append(await _run(protocol, name, step))
            if not results[-1].ok and name in ("connect", "spawn"):
                return
    finally:
        await steps.close()


async def _run(protocol: str, name: str, step: Callable[[], Awaitable[str]]) -> Result:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(limit_s := PULL_TIMEOUT_S if name == "pull" else STEP_TIMEOUT_S):
            seen, ok = await step(), True
    except TimeoutError:
        seen, ok = f"no answer within {limit_s:.0f} s", False
    except (Unexpected, ClientError, aiohttp.ClientError, OSError, KeyError, TypeError) as error:
        seen, ok = str(error) or repr(error), False
    return Result(protocol, name, ok, round((time.perf_counter() - start) * 1000, 1), seen)


class Steps:
    """One connection and the shell that it starts. Each step returns what it saw, or raises Unexpected."""

    def __init__(self, session: aiohttp.ClientSession, target: Target, modern: bool) -> None:
        self._session = session
        self._target = target
        self._modern = modern
        self._ids = itertools.count(1)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._pid = 0
        self._text = b""
        self._next: int | None = 0  # the offset that must come next; None where any may
        self._exit: Json | None = None
        self._pushed = False
        self._word = secrets.token_hex(4)

    def all(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """The steps in their order."""
        names = ["connect", "status", "ping", "list", "spawn", "write", "resize", "attach", "push", "pull"]
        names += ["unknown", "detach", *(["type", "stats"] if self._modern else []), "kill"]
        return [(name, getattr(self, f"do_{name}")) for name in names]

    async def close(self) -> None:
        """Remove the file and end the shell, should a step have failed before, and end the connection."""
        if self._socket is None or self._socket.closed:
            return
        if self._pid and self._exit is None:
            with contextlib.suppress(TimeoutError, Unexpected):
                async with asyncio.timeout(GOODBYE_S):
                    await self._clean_up()
            await self._socket.send_json({"type": "kill", "pid": self._pid, "signal": "SIGKILL"})
        await self._socket.close()

    async def _clean_up(self) -> None:
        if self._pushed:
            await self._type(f'rm -f {SCRATCH}; echo "{self._word}""-gone"\r')
            await self._until(lambda: f"{self._word}-gone".encode() in self._text)
            self._pushed = False

    async def do_connect(self) -> str:
        token = self._target.token
        try:
            self._socket = await self._session.ws_connect(
                self._target.url,
                protocols=(SUBPROTOCOL,) if self._modern else (),
                headers={"Authorization": f"Bearer {token}"} if token else {},
                max_msg_size=MAX_MESSAGE_BYTES,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise refusal(self._target.url, error.status) from None
        if self._modern and self._socket.protocol != SUBPROTOCOL:
            raise Unexpected(f"subprotocol {SUBPROTOCOL} was not selected")
        hello = await self._message(lambda message: message["type"] == "connected")
        config = hello["config"]
        return f"protocol {hello['protocolVersion']}, sandbox {config['sandboxMode']}"

    async def do_status(self) -> str:
        answer = await self._ask("status", "status")
        return f"{answer['stats']['active']} of {answer['config']['maxProcesses']} processes"

    async def do_ping(self) -> str:
        answer = await self._ask("pong", "ping")
        return f"its clock is {answer['time'] - time.time() * 1000:+.0f} ms from this one"

    async def do_list(self) -> str:
        return say.count(len((await self._ask("processList", "list"))["processes"]), "process", "processes")

    async def do_spawn(self) -> str:
        # Without HISTFILE a shell keeps its history to itself. A server that does not know `remove` keeps
        # the record for as long as others.
        options = {"cwd": "/", "env": {"HISTFILE": ""}}
        answer = await self._ask(
            "spawned", "spawn", processType="shell", command="", options=options, remove=True
        )
        self._pid = answer["pid"]
        return f"pid {self._pid}"

    async def do_write(self) -> str:
        """The word is put together by the shell, so that the terminal's echo is not taken for it."""
        half = len(self._word) // 2
        await self._type(f'echo "{self._word[:half]}""{self._word[half:]}"\r')
        await self._until(lambda: self._word.encode() in self._text)
        return f"the shell answered after {len(self._text)} bytes"

    async def do_resize(self) -> str:
        """Asks until it is so: a shell that is about to write its prompt may undo a new size for a moment."""
        await self._send(type="resize", pid=self._pid, cols=97, rows=31)
        await self._type("until [ \"$(stty size)\" = '31 97' ]; do sleep 0.02; done; stty size\r")
        await self._until(lambda: b"31 97\r" in self._text)
        return "31 rows, 97 columns"

    async def do_attach(self) -> str:
        before, self._text, self._next = self._text, b"", None
        answer = await self._ask("attached", "attach", pid=self._pid)
        if self._word.encode() not in self._text:
            raise Unexpected(f"the replay of {len(self._text)} bytes lacks what the shell wrote")
        return f"{answer['status']}, {len(self._text)} bytes again, {len(before)} before"

    async def do_push(self) -> str:
        self._pushed = True
        file = {"path": SCRATCH, "kind": "file", "content": list(self._word.encode()), "mtime": 0}
        results = (await self._ask("fsyncResult", "fsync", operation="push", files=[file]))["results"]
        if results["synced"] != 1:
            raise Unexpected(json.dumps(results))
        return f"wrote {SCRATCH}"

    async def do_pull(self) -> str:
        """The file as the shell sees it, and all files at once; more than one pull carries is refused."""
        await self._type(f'cat {SCRATCH}; echo "-seen"\r')
        await self._until(lambda: f"{self._word}-seen".encode() in self._text)
        answer = await self._ask("fsyncResult", "fsync", operation="pull")
        await self._clean_up()
        if answer["status"] != "success":
            if "one pull" in (refused := str(answer.get("error"))):
                return f"{SCRATCH} as it was written; {refused}"
            raise Unexpected(refused)
        files = answer["files"]
        found = next((file for file in files if file["path"].lstrip("/") == SCRATCH), None)
        if found is None or _content(found) != self._word.encode():
            raise Unexpected(f"{SCRATCH} did not come back as it was written")
        return f"{len(files)} entries, {SCRATCH} as it was written"

    async def do_unknown(self) -> str:
        answer = await self._ask("error", "noSuchRequest")
        if not str(answer["error"]).startswith("Unknown message type"):
            raise Unexpected(str(answer["error"]))
        return str(answer["error"])

    async def do_detach(self) -> str:
        await self._ask("detached", "detach", pid=self._pid)
        self._next = None
        await self._ask("attached", "attach", pid=self._pid)
        return "and attached again"

    async def do_type(self) -> str:
        """Numbered input, sent twice as after a lost connection: the shell must get it once."""
        opened = await self._ask("inputOpened", "openInput", pid=self._pid, client=self._word)
        header = frames.pack_header(frames.INPUT, frames.NUMBERED, self._pid, opened["next"])
        for _ in range(2):
            await self._connected().send_bytes(header + f'echo "{self._word}""-once"\r'.encode())
        await self._type(f'echo "{self._word}""-then"\r')
        await self._until(lambda: f"{self._word}-then".encode() in self._text)
        if (times := self._text.count(f"{self._word}-once".encode())) != 1:
            raise Unexpected(f"input that was sent twice was typed {times} times")
        return "sent twice, typed once"

    async def do_stats(self) -> str:
        rows = (await self._ask("processStats", "stats", pid=self._pid))["processes"]
        return f"{rows[0]['rssBytes']} bytes of memory, {rows[0]['cpuMs']} ms of CPU time"

    async def do_kill(self) -> str:
        await self._ask("killed", "kill", pid=self._pid)
        await self._until(lambda: self._exit is not None)
        ended = self._exit or {}
        return f"exit code {ended['code']}, signal {ended['signal']}"

    # Messages

    async def _ask(self, answer_type: str, request_type: str, **fields: Any) -> Json:
        number = next(self._ids)
        await self._send(type=request_type, id=number, **fields)
        answer = await self._message(lambda message: message.get("id") == number)
        if answer["type"] != answer_type:
            raise Unexpected(f"{request_type} was answered by {answer['type']}: {answer.get('error', '')}")
        return answer

    async def _send(self, **message: Any) -> None:
        await self._connected().send_json(message)

    async def _type(self, text: str) -> None:
        if self._modern:
            header = frames.pack_header(frames.INPUT, 0, self._pid, 0)
            await self._connected().send_bytes(header + text.encode())
        else:
            await self._send(type="write", pid=self._pid, data=text)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._receive()

    async def _message(self, wanted: Callable[[Json], bool]) -> Json:
        while True:
            message = await self._receive()
            if message is not None and wanted(message):
                return message

    async def _receive(self) -> Json | None:
        """Take in one frame; a text frame's message, None for a binary one."""
        frame = await self._connected().receive()
        if frame.type is aiohttp.WSMsgType.BINARY and self._modern:
            self._output(unpack(frame.data))
            return None
        if frame.type is not aiohttp.WSMsgType.TEXT:
            raise Unexpected(f"the connection sent {frame.type.name}")
        message = _message(frame.data)
        if message["type"] in ("stdout", "stderr"):
            self._text += message["data"].encode()
        elif message["type"] == "exit" and message["pid"] == self._pid:
            self._exit = message
        return message

    def _output(self, frame: frames.DataFrame) -> None:
        replay = bool(frame.flags & frames.REPLAY)
        restarts = replay and (self._next is None or frame.offset < self._next)
        if self._next is not None and frame.offset != self._next and not restarts:
            raise Unexpected(f"output at offset {frame.offset}, expected {self._next}")
        self._next = frame.offset + len(frame.payload)
        self._text += frame.payload

    def _connected(self) -> aiohttp.ClientWebSocketResponse:
        if self._socket is None:
            raise Unexpected("there is no connection")
        return self._socket
