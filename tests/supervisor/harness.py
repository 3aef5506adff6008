"""A real supervisor whose server is the test itself, by way of a bridge. Knows the channel's messages."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mhnos_runtime import config
from mhnos_runtime.channel import MOVED, OUTPUT, Channel, Disconnected
from mhnos_runtime.launch import ExitRecord, Hello, LaunchPlan, ProcessDescriptors, ProcessRecord
from mhnos_runtime.output import NO_HOLD, Chunk, Cursor, LogReader, Overrun
from mhnos_runtime.sandbox import Allowed, HostFacts, Policy, Sandbox
from mhnos_runtime.supervisor import handover, plain
from mhnos_runtime.supervisor.config import Config

BRIDGE = Path(__file__).with_name("bridge.py")
DEADLINE_SECONDS = 20.0
#: An operator who allows anything that can be said at level none.
ANYTHING = Allowed(Sandbox(Policy("none"), HostFacts(), "/"), "/no/engines", 10**6, 1 << 62, 10**9, 10**9)
#: What a reload compares with the settings that it finds.
SETTINGS = config.load({}, {"HOME": "/nonexistent"})[0].to_json()
#: With what only servers read.
HELLO = Hello("s-1", 0, ANYTHING.to_dict(), SETTINGS, {"unread": [1, "ü"]}, "/bin", "", "there is none", ())
ENVIRONMENT = {"PATH": os.environ["PATH"], "TERM": "dumb", "LANG": "C.UTF-8"}


class Refused(Exception):
    """The supervisor refused to start a program; `body` is what it said."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body["message"])
        self.body = body


class Seen:
    """One process as a server sees it."""

    def __init__(self, record: ProcessRecord, descriptors: list[int]) -> None:
        self.pid = record.pid
        self.os_pid = record.os_pid
        self.record = record
        log_fd, self.input_fd, self.control_fd = ProcessDescriptors.received(descriptors, record.control)
        self.log = LogReader(log_fd)
        self.exit: ExitRecord | None = record.exit
        self.notices = 0

    def output(self, stream: int | None = None) -> bytes:
        """All that is kept of one stream, or of both in their order."""
        cursor = Cursor(self.log, self.log.tail)
        chunks: list[bytes] = []
        while (item := cursor.take()) is not None:
            if isinstance(item, Chunk) and stream in (None, item.stream):
                chunks.append(item.data)
        return b"".join(chunks)

    def write(self, data: bytes) -> None:
        os.write(self.input_fd, data)

    def close(self) -> None:
        self.log.close()
        for fd in {self.input_fd, self.control_fd} - {-1}:
            os.close(fd)


class Server:
    """The test's end of one server's life."""

    def __init__(self, sock: socket.socket) -> None:
        self.os_pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self.sock = sock
        self.channel = Channel(sock)
        self.events: list[dict[str, Any]] = []
        self.processes: dict[int, Seen] = {}
        self.gone = False
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        # Above what a fuzzer makes up: an answer to that must not be taken for the answer to a request here.
        self._last_request = 1 << 45
        self._events_before: dict[int, int] = {}

    def close(self) -> None:
        self.channel.close()
        for process in self.processes.values():
            process.close()

    def pump(self, timeout_ms: int = 50) -> None:
        """Take what has arrived, waiting a moment for the first of it."""
        with contextlib.suppress(Disconnected):
            self.channel.flush()
        if self.gone or not self._poll.poll(timeout_ms):
            return
        with contextlib.suppress(Disconnected):
            while (message := self.channel.receive()) is not None:
                if message.kind == OUTPUT:
                    self.processes[message.pid].notices += 1
                else:
                    self._take(message.body, message.descriptors)
            return
        self.gone = True

    def _take(self, body: dict[str, Any], descriptors: list[int]) -> None:
        self.events.append(body)
        if body["event"] in ("spawned", "restored"):
            seen = Seen(ProcessRecord.from_dict(body["record"]), descriptors)
            self.processes[seen.pid] = seen
        elif body["event"] == "exited":
            process = self.processes[body["pid"]]
            assert process.exit is None, "told of an exit twice"
            process.exit = ExitRecord.from_dict(body["exit"])

    def until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
        """Serve until the condition holds; return its value."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what}; events: {self.events[-5:]}")
            if self.gone:
                raise AssertionError(f"the supervisor is gone, before {what}; events: {self.events[-5:]}")
            self.pump()
        return value

    def event(self, name: str, seconds: float = DEADLINE_SECONDS, **fields: Any) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            wanted = {"event": name, **fields}
            return next((body for body in self.events if wanted.items() <= body.items()), None)

        found: dict[str, Any] = self.until(find, f"{name} {fields}", seconds)
        return found

    # What a server asks

    def request(
        self, argv: tuple[str, ...], cwd: Path | None = None, hand: Sequence[int] = (), **plan: Any
    ) -> int:
        """Ask for a process, which is handed descriptors; return the number of the request."""
        launch = LaunchPlan(
            **{"argv": argv, "env": ENVIRONMENT, "retention_bytes": 1 << 18, "handed": len(hand), **plan}
        )
        directory = os.open(cwd or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            return self.ask_raw(launch.to_request(), [directory, *hand])
        finally:
            os.close(directory)

    def ask_raw(self, plan: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Ask for a process with whatever is given; return the number of the request."""
        self._last_request += 1
        self._events_before[self._last_request] = len(self.events)
        self.channel.send({"do": "spawn", "request": self._last_request, "plan": plan}, descriptors)
        return self._last_request

    def answer(self, request: int, seconds: float = DEADLINE_SECONDS) -> Seen:
        """Wait for what became of a request. Raises Refused."""

        def find() -> dict[str, Any] | None:
            new = self.events[self._events_before[request] :]
            return next((body for body in new if body.get("request") == request), None)

        body: dict[str, Any] = self.until(find, f"an answer to request {request}", seconds)
        if body["event"] == "refused":
            raise Refused(body)
        return self.processes[body["record"]["pid"]]

    def spawn(self, *argv: str, cwd: Path | None = None, hand: Sequence[int] = (), **plan: Any) -> Seen:
        program = argv if "/" in argv[0] else (which(argv[0]), *argv[1:])
        return self.answer(self.request(program, cwd, hand, **plan))

    def sh(self, script: str, **plan: Any) -> Seen:
        return self.spawn("sh", "-c", script, **plan)

    def python(self, script: str, **plan: Any) -> Seen:
        return self.spawn(sys.executable, "-I", "-S", "-c", script, **plan)

    def kill(self, process: Seen, number: int, reason: str = "killed", escalate: bool = True) -> None:
        body = {"do": "kill", "pid": process.pid, "signal": int(number), "reason": reason}
        self.channel.send({**body, "escalate": escalate})

    def ask(self, do: str, process: Seen, **more: Any) -> None:
        self.channel.send({"do": do, "pid": process.pid, **more})

    def send_raw(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Bytes that the channel would not send."""
        self._poll.modify(self.channel.fileno(), select.POLLIN | select.POLLOUT)
        self._poll.poll(1000)
        self._poll.modify(self.channel.fileno(), select.POLLIN)
        socket.send_fds(self.sock, [data], descriptors)

    def hold(self, process: Seen, offset: int = NO_HOLD) -> None:
        """Hold the writer at an offset, and tell it when it waits for that."""
        if process.log.set_hold(offset):
            self.channel.notify(MOVED, process.pid)

    def ended(self, process: Seen, seconds: float = DEADLINE_SECONDS) -> ExitRecord:
        record: ExitRecord = self.until(lambda: process.exit, f"the end of {process.pid}", seconds)
        return record

    def said(self, process: Seen, text: bytes, seconds: float = DEADLINE_SECONDS) -> bytes:
        """Wait until the process has written `text`; return all that it wrote."""
        self.until(lambda: text in process.output(), f"{text!r} from {process.pid}", seconds)
        return process.output()


class Supervised:
    """A supervisor in a process of its own. Every new server is a new `Server` here."""

    def __init__(
        self,
        tmp_path: Path,
        server: list[str] | None = None,
        allowed: Allowed = ANYTHING,
        listeners: Sequence[int] = (),
        **limits: Any,
    ) -> None:
        self.state_dir = tmp_path / "state"
        self.marker = tmp_path / "runs.json"
        self.marker.write_text("{}")
        self.stderr = tmp_path / "supervisor.log"
        self._address = uuid.uuid4().hex
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("\0" + self._address)
        self._listener.listen()
        self._servers: list[Server] = []
        lock_fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
        config = Config(
            server=server or ["-I", "-S", str(BRIDGE), self._address],
            lock_fd=lock_fd,
            state_dir=self.state_dir,
            stop_grace_ms=2000,
            hello=replace(HELLO, allowed=allowed.to_dict(), listeners=tuple(listeners)),
            log_json=False,
            remove_at_end=[str(self.marker)],
        )
        self.popen = self._start(config, limits)
        os.close(lock_fd)

    def _start(self, config: Config, limits: dict[str, Any]) -> subprocess.Popen[bytes]:
        fd = handover.write(plain.encode(config))
        try:
            with self.stderr.open("wb") as log:
                return subprocess.Popen(
                    [sys.executable, "-m", "mhnos_runtime.supervisor", str(fd)],
                    pass_fds=[fd, config.lock_fd, *config.listeners],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **limits,
                )
        finally:
            os.close(fd)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.stderr.read_text(errors="replace")

    def accept(self, seconds: float = DEADLINE_SECONDS) -> Server:
        """The next server, once it is connected; nothing of what it was told has been read yet."""
        self._listener.settimeout(seconds)
        server = Server(self._listener.accept()[0])
        self._servers.append(server)
        return server

    def serve(self) -> Server:
        """The next server, once it has been told everything."""
        server = self.accept()
        server.event("ready")
        return server

    def serve_again(self) -> Server:
        """Kill the present server; the next one, once it has been told everything."""
        os.kill(self._servers[-1].os_pid, signal.SIGKILL)
        return self.serve()

    def wait(self, seconds: float = DEADLINE_SECONDS) -> int:
        return self.popen.wait(seconds)

    def files(self) -> list[str]:
        """Of all processes; the log that waits for the next one is nobody's."""
        names = (path.name for path in (self.state_dir / "processes").glob("*"))
        return sorted(name for name in names if name != "next.log")

    def descriptors(self) -> list[str]:
        """What each of its descriptors is, apart from standard input, output and error."""
        found = []
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if int(fd.name) > 2 and not (target := os.readlink(fd)).endswith("/next.log"):
                    found.append(target)
        return found

    def close(self) -> None:
        """End it the hard way: its children die with it."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(5)
            self.popen.kill()
        self.popen.wait()
        for server in self._servers:
            server.close()
        self._listener.close()
        assert "Traceback" not in self.log, self.log


@contextlib.contextmanager
def supervised(
    tmp_path: Path, server: list[str] | None = None, allowed: Allowed = ANYTHING, **more: Any
) -> Iterator[Supervised]:
    """more: listeners, and what `subprocess.Popen` takes."""
    running = Supervised(tmp_path, server, allowed, **more)
    try:
        yield running
    finally:
        running.close()


def which(name: str) -> str:
    for folder in ENVIRONMENT["PATH"].split(":"):
        if os.access(path := f"{folder}/{name}", os.X_OK):
            return path
    raise FileNotFoundError(name)


def alive(os_pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{os_pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"


def eventually(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait for something that no event tells of."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return value


def gap_or_data(cursor: Cursor) -> tuple[bytes, list[tuple[int, int]]]:
    """Read to the head: the bytes that are kept, and the gaps before and between them."""
    data, gaps = b"", []
    while (item := cursor.take()) is not None:
        if isinstance(item, Overrun):
            gaps.append((item.from_, item.to))
        else:
            data += item.data
    return data, gaps
