"""A double of the server for faults: it cuts, repeats, withholds and lies on command; it runs nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web

from mhnos_runtime.client import Backoff, Runtime, connect
from mhnos_runtime.wire import frames

Json = dict[str, Any]
EXIT = {"code": 0, "signal": None, "reason": "exit", "evidence": "waitid", "runtimeMs": 5, "cpuMs": 1}


@dataclass
class FakeProcess:
    """`log` is what it wrote; `first_offset` is where the kept part starts; `exit` ends its stream."""

    log: bytes = b""
    first_offset: int = 0
    exit: Json | None = None
    stderr: bool = False
    name: str | None = None
    pty: Json | None = None
    written: bytes = b""
    typed: dict[str, int] = field(default_factory=dict)
    uncertain_from: int | None = None
    stdin_closed: bool = False
    sizes: list[tuple[int, int]] = field(default_factory=list)
    times: list[tuple[int, int]] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)

    def info(self, pid: int) -> Json:
        """PROCESS of the protocol."""
        return {
            "pid": pid,
            "name": self.name,
            "type": "python",
            "command": "app.py",
            "args": [],
            "startTime": 1_700_000_000_000,
            "status": "exited" if self.exit else "running",
            "pty": self.pty,
            "firstOffset": self.first_offset,
            "nextOffset": len(self.log),
            "exit": self.exit_record(),
        }

    def exit_record(self) -> Json | None:
        if self.exit is None:
            return None
        return {"maxRssBytes": None, "bytes": len(self.log), "endTime": 1_700_000_000_005, **self.exit}


class Cut(Exception):
    """The connection is gone, without a goodbye."""


class Peer:
    """One connection as the double sees it."""

    def __init__(self, fake: FakeServer, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.fake = fake
        self.socket = socket
        self._request = request
        self.attached: set[int] = set()
        self.names: dict[int, str] = {}

    async def send(self, **message: Any) -> None:
        self._count()
        await self.socket.send_str(json.dumps(message))

    async def send_output(
        self, pid: int, offset: int, data: bytes, *, stderr: bool = False, flags: int = 0
    ) -> None:
        self._count()
        kind = frames.STDERR if stderr else frames.STDOUT
        await self.socket.send_bytes(frames.pack_header(kind, flags, pid, offset) + data)

    def cut(self) -> None:
        """Abort the TCP connection: what a lost network looks like at its end."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def _count(self) -> None:
        if self.fake.cut_after is not None:
            if self.fake.cut_after == 0:
                self.fake.cut_after = self.fake.next_cut_after
                self.cut()
                raise Cut
            self.fake.cut_after -= 1


Handler = Callable[[Peer, Json], Awaitable[bool]]


class FakeServer:
    """Use as an async context manager. `cut_after`: messages until the connection is cut, once, or again and
    again if `next_cut_after` is set."""

    def __init__(self) -> None:
        self.processes: dict[int, FakeProcess] = {}
        self.server_id = "first"
        self.token: str | None = None
        self.scopes: list[str] | None = None
        self.refuse_status: int | None = None
        self.refuse_headers: dict[str, str] = {}
        self.chunk_bytes = 8
        self.overlap_bytes = 0
        self.cut_after: int | None = None
        self.next_cut_after: int | None = None
        self.retention_bytes = 1 << 20
        self.subprotocol = True
        self.handlers: dict[str, Handler] = {}
        self.requests: list[Json] = []
        self.keys: dict[str, int] = {}
        self.peers: list[Peer] = []
        self.upgrades = 0
        self.changed = asyncio.Condition()
        self.on_input: Callable[[Peer, int, bytes], Awaitable[bool]] | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._upgrade)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in self.peers:
            peer.cut()
        await self._runner.cleanup()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until something that a client causes is true here."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(condition), 10)

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def feed(self, pid: int, data: bytes) -> None:
        """The process writes: to its log and to every attached client."""
        process = self.processes[pid]
        offset = len(process.log)
        process.log += data
        for peer in self._viewers(pid):
            with suppress(Cut, ConnectionError):
                await peer.send_output(pid, offset, data, stderr=process.stderr)

    async def end(self, pid: int, **exit_: Any) -> None:
        """The process ends."""
        process = self.processes[pid]
        process.exit = {**EXIT, **exit_}
        for peer in self._viewers(pid):
            with suppress(Cut, ConnectionError):
                await self._send_exit(peer, pid, process)

    def _viewers(self, pid: int) -> list[Peer]:
        return [peer for peer in self.peers if pid in peer.attached]

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        self.upgrades += 1
        await self.note()
        if self.refuse_status is not None:
            return web.Response(status=self.refuse_status, headers=self.refuse_headers)
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        socket = web.WebSocketResponse(
            protocols=("mhnos.v1.1",) if self.subprotocol else (), max_msg_size=1 << 27
        )
        await socket.prepare(request)
        peer = Peer(self, socket, request)
        self.peers.append(peer)
        try:
            await self._serve(peer)
        except (Cut, ConnectionError):
            pass
        finally:
            self.peers.remove(peer)
            await self.note()
        return socket

    async def _serve(self, peer: Peer) -> None:
        config = {"workspace": "/workspace", "sandboxMode": "none", "allowOpenClaw": False}
        limits = {
            "maxMessageBytes": 1 << 27,
            "maxInputBytes": 1 << 20,
            "maxProcesses": 50,
            "retentionBytes": self.retention_bytes,
        }
        await peer.send(
            type="connected",
            protocolVersion="1.0.0",
            config=config,
            serverId=self.server_id,
            protocol="1.1",
            limits=limits,
            **({} if self.scopes is None else {"scopes": self.scopes}),
        )
        async for frame in peer.socket:
            if frame.type is WSMsgType.TEXT:
                await self._on_request(peer, json.loads(frame.data))
            elif frame.type is WSMsgType.BINARY:
                with suppress(Cut):
                    await self._on_input(peer, frames.unpack(frame.data))
            await self.note()

    async def _on_input(self, peer: Peer, frame: frames.DataFrame) -> None:
        """Numbered, as this project's client sends it. on_input: True when it has answered instead."""
        process, name = self.processes.get(frame.pid), peer.names.get(frame.pid)
        assert process is not None
        assert frame.flags == frames.NUMBERED
        if self.on_input is not None and await self.on_input(peer, frame.pid, bytes(frame.payload)):
            return
        typed = process.typed.get(name or "", 0)
        if name is None or frame.offset > typed:
            code = "not-negotiated" if name is None else "input-gap"
            await peer.send(type="error", pid=frame.pid, error="refused", code=code, retry=False)
            return
        new = bytes(frame.payload[typed - frame.offset :])
        process.written += new
        process.typed[name] = typed + len(new)
        await peer.send(type="inputAck", pid=frame.pid, next=typed + len(new))

    async def _do_openinput(self, peer: Peer, request: Json) -> None:
        process = self.processes.get(request["pid"])
        if process is None:
            await self._unknown(peer, request)
            return
        peer.names[request["pid"]] = request["client"]
        answer: Json = {"next": process.typed.setdefault(request["client"], 0)}
        if process.uncertain_from is not None:
            answer["uncertainFrom"] = process.uncertain_from
        await peer.send(type="inputOpened", id=request["id"], pid=request["pid"], **answer)

    async def _unknown(self, peer: Peer, request: Json) -> None:
        error = f"Process {request['pid']} not found"
        id_ = {"id": request["id"]} if "id" in request else {}
        await peer.send(type="error", error=error, code="unknown-process", retry=False, **id_)

    async def _on_request(self, peer: Peer, request: Json) -> None:
        self.requests.append(request)
        custom = self.handlers.get(request["type"])
        if custom is not None and await custom(peer, request):
            return
        default = getattr(self, f"_do_{request['type'].lower()}", None)
        if default is not None:
            await default(peer, request)

    async def _do_ping(self, peer: Peer, request: Json) -> None:
        await peer.send(type="pong", id=request["id"], time=1)

    async def _do_list(self, peer: Peer, request: Json) -> None:
        rows = [p.info(pid) for pid, p in self.processes.items() if request.get("all") or p.exit is None]
        stats = {"totalSpawned": len(self.processes), "totalKilled": 0, "active": len(rows)}
        await peer.send(type="processList", id=request["id"], processes=rows, stats=stats)

    async def _do_stats(self, peer: Peer, request: Json) -> None:
        rows = [{"pid": pid, "cpuMs": 12, "rssBytes": 3 << 20, "tasks": 1} for pid in self.processes]
        await peer.send(type="processStats", id=request["id"], processes=rows)

    async def _do_timeline(self, peer: Peer, request: Json) -> None:
        """In pages of two."""
        process = self.processes.get(request["pid"])
        if process is None:
            await self._unknown(peer, request)
            return
        times = [each for each in process.times if each[0] >= request.get("from", 0)]
        more = {"next": times[2][0]} if times[2:] else {}
        await peer.send(type="timelineAnswer", id=request["id"], pid=request["pid"], times=times[:2], **more)

    async def _do_search(self, peer: Peer, request: Json) -> None:
        """One match in each process: its log."""
        pids = request.get("processes") or list(self.processes)
        matches = [
            {
                "pid": pid,
                "stream": "stdout",
                "offset": 0,
                "time": 1500,
                "line": self.processes[pid].log.decode(),
            }
            for pid in pids
            if request["pattern"] in self.processes[pid].log.decode()
        ]
        await peer.send(
            type="searchResult",
            id=request["id"],
            matches=matches,
            searchedBytes=9,
            truncated=len(matches) > 1,
        )

    async def _do_detach(self, peer: Peer, request: Json) -> None:
        peer.attached.discard(request["pid"])
        await peer.send(type="detached", id=request["id"], pid=request["pid"])

    async def _do_resize(self, peer: Peer, request: Json) -> None:
        self.processes[request["pid"]].sizes.append((request["cols"], request["rows"]))

    async def _do_kill(self, peer: Peer, request: Json) -> None:
        process = self.processes.get(request["pid"])
        if process is not None:
            process.signals.append(request.get("signal", "SIGTERM"))
        await peer.send(type="killed", id=request["id"], pid=request["pid"])

    async def _do_closestdin(self, peer: Peer, request: Json) -> None:
        self.processes[request["pid"]].stdin_closed = True
        await peer.send(type="stdinClosed", id=request["id"], pid=request["pid"])

    async def _do_spawn(self, peer: Peer, request: Json) -> None:
        pid = self.keys.setdefault(request["key"], 1000 + len(self.processes))
        process = self.processes.setdefault(pid, FakeProcess())
        if isinstance(request.get("pty"), dict):
            process.pty = request["pty"]
            process.sizes.append((request["pty"]["cols"], request["pty"]["rows"]))
        if request.get("attach", True):
            peer.attached.add(pid)
        await peer.send(type="spawned", id=request.get("id"), pid=pid, status="success")

    async def _do_attach(self, peer: Peer, request: Json) -> None:
        pid = request["pid"]
        process = self.processes.get(pid)
        if process is None:
            await self._unknown(peer, request)
            return
        wanted = self._start_of(process, request)
        start = max(wanted, process.first_offset)
        head = len(process.log)
        if start < head:
            await peer.send(type="replay", pid=pid, to=head, **{"from": start})
        if start > wanted:
            await peer.send(type="gap", pid=pid, **{"from": wanted, "to": start})
        elif isinstance(request.get("from"), int):
            start = max(process.first_offset, start - self.overlap_bytes)
        for offset in range(start, head, self.chunk_bytes):
            chunk = process.log[offset : min(offset + self.chunk_bytes, head)]
            await peer.send_output(pid, offset, chunk, stderr=process.stderr, flags=frames.REPLAY)
        peer.attached.add(pid)
        info = process.info(pid)
        await peer.send(
            type="attached",
            **({"id": request["id"]} if "id" in request else {}),
            pid=pid,
            status=info["status"],
            process=info,
            next=head,
            **{"from": start},
        )
        if process.exit is not None:
            await self._send_exit(peer, pid, process)

    def _start_of(self, process: FakeProcess, request: Json) -> int:
        origin = request.get("from", "start")
        if "tail" in request:
            return max(process.first_offset, len(process.log) - int(request["tail"]))
        if origin == "end":
            return len(process.log)
        if "since" in request:
            times = [offset for offset, time_ms in process.times if time_ms + 1000 > request["since"]]
            return times[0] if times else len(process.log)
        return 0 if origin == "start" else int(origin)

    async def _send_exit(self, peer: Peer, pid: int, process: FakeProcess) -> None:
        record = process.exit_record() or {}
        fields = {
            key: record.get(key) for key in ("code", "signal", "reason", "evidence", "cpuMs", "maxRssBytes")
        }
        await peer.send(type="exit", pid=pid, runtime=record["runtimeMs"], bytes=record["bytes"], **fields)


def runtime_for(fake: FakeServer, **options: Any) -> Runtime:
    """A client that loses no time between its attempts."""
    quick = Backoff(first_s=0.001, cap_s=0.01)
    return connect(fake.url, **{"backoff": quick, "request_timeout_s": 10, **options})
