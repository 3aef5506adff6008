"""The interface every peer has. Knows nothing of what is measured."""

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

WORK = Path(__file__).parent.parent / ".work"
SERVERS = Path(__file__).parent.parent / "servers"
LOAD = str(WORK / "bin" / "load")


class Unavailable(Exception):
    """This peer is not on this machine; its rows are left out."""


class Session(ABC):
    """One client's connection to one process."""

    drain_mode = "raw"

    @abstractmethod
    def fileno(self) -> int:
        """Where the output comes from, for the C reader."""

    @abstractmethod
    def write(self, data: bytes) -> None: ...

    @abstractmethod
    def read(self) -> bytes:
        """The next piece of output; blocks until there is some."""

    @abstractmethod
    def close(self) -> None:
        """Ends the process too."""

    def expect(self, marker: bytes) -> None:
        """Reads until the marker came."""
        seen = b""
        while marker not in seen:
            seen += self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Peer(ABC):
    """One server (or none, for the kernel), started on entry and gone on exit."""

    name = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:  # noqa: B027 - the kernel has nothing to start
        """Raises Unavailable."""

    def stop(self) -> None:  # noqa: B027
        pass

    @abstractmethod
    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        """A new connection with a new process on it."""

    def view(self, session: Session) -> Session:
        """One more connection to the process of a session."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """The server's processes: those whose CPU time and memory count."""
        return []

    def own_files(self) -> str:
        """Files under this path, when mapped, are kept output and not the server's own memory."""
        return "\0none"


class ServerProcess:
    """A peer's server that prints its port as its first line."""

    def __init__(self, argv: Sequence[str]) -> None:
        # What it complains about, as of viewers that leave in the middle, is of no interest here.
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment()
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Unavailable(f"{argv[0]} did not start")
        self.port = int(line)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def clean_environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "TERM": "xterm-256color",
    }
