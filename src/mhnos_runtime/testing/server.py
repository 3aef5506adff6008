"""A real supervisor and server on a free port, with a workspace and state of their own. Knows the command
line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from mhnos_runtime import title

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
#: Between two looks for a server that the supervisor is about to start.
_LOOK_SECONDS = 0.02


class TestServer:
    """An async context manager around `mhnos-runtime serve --port 0`.

    url: "http://127.0.0.1:PORT". token: as in the state directory. workspace, state_dir: below `directory`,
    which is a temporary one when none is given. python: what it runs on. pid: the supervisor's. greeting:
    what it printed. Extra flags and variables are passed on; prefix: of the command, which it has to execute.
    Without --sandbox the level is none.
    """

    __test__ = False

    def __init__(
        self,
        directory: Path | None = None,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        # The level is the test's business, and root's processes are to be able to use a private directory.
        root_too = ("--allow-root",) if os.geteuid() == 0 and "--sandbox" not in flags else ()
        self._flags = (*(() if "--sandbox" in flags else ("--sandbox", "none")), *root_too, *flags)
        self._environment = dict(environment or {})
        self._prefix = prefix
        self._temporary = tempfile.TemporaryDirectory() if directory is None else None
        root = Path(self._temporary.name) if self._temporary is not None else directory
        if root is None:
            raise ValueError("no directory")
        self.workspace = root / "workspace"
        self.state_dir = root / "state"
        self.log = root / "server.log"
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.ReadTransport | None = None
        self.python = sys.executable
        self.url = ""
        self.greeting = ""

    @property
    def token(self) -> str:
        return (self.state_dir / "token").read_text().strip()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server has not been started")
        return self._process.pid

    def server_pid(self) -> int:
        """The OS pid of the server process, a child of the supervisor. Blocks while there is none:
        a number that is no process's (0 is the caller's own group) must not get into a signal. Raises
        RuntimeError where none comes."""
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if (found := self._server_child()) is not None:
                return found
            time.sleep(_LOOK_SECONDS)
        raise RuntimeError(f"there is no server:\n{self.log.read_text()}")

    def _server_child(self) -> int | None:
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            if title.has(int(child), title.SERVER):
                return int(child)
        return None

    async def __aenter__(self) -> Self:
        self.workspace.mkdir(parents=True, exist_ok=True)
        lines, output = await self._pipe()
        with self.log.open("ab") as log, output:
            self._process = await asyncio.create_subprocess_exec(
                *self._prefix,
                self.python,
                "-m",
                "mhnos_runtime",
                "serve",
                "--port",
                "0",
                *self._flags,
                env=self._variables(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )
        try:
            await asyncio.wait_for(self._started(lines), _START_SECONDS)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> int:
        """End the runtime and everything that it started; return its exit code."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            code = await self._process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()
        if self._output is not None:
            self._output.close()
        return code

    async def _pipe(self) -> tuple[asyncio.StreamReader, BinaryIO]:
        """For the greeting. A pipe of the subprocess's own would stay open, and be complained about, for as
        long as anything that a killed runtime left behind lives."""
        reader, writer = os.pipe()
        lines = asyncio.StreamReader()
        self._output, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(reader, "rb", 0)
        )
        return lines, os.fdopen(writer, "wb", 0)

    def _variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MHNOS_")}
        own = {"MHNOS_WORKSPACE": str(self.workspace), "MHNOS_STATE_DIR": str(self.state_dir)}
        return {**kept, **own, **self._environment}

    async def _started(self, lines: asyncio.StreamReader) -> None:
        """Wait for the greeting, after which connection attempts are queued by the listening socket."""
        while line := await lines.readline():
            self.greeting += line.decode()
            if line.startswith(b"  try  "):
                break
        else:
            raise RuntimeError(f"the runtime did not start:\n{self.log.read_text()}")
        self.url = json.loads((self.state_dir / "server.json").read_text())["url"]
