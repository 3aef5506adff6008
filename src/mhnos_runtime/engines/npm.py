"""Runs `npm ci` and says how far it is and why it failed. Knows npm's output; knows no engine.

npm's own configuration decides on registry, proxy and credentials; nothing here names one.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mhnos_runtime.engines.confined import Command, plain
from mhnos_runtime.errors import InstallFailed

_OPTIONS = (
    # No package runs anything here: what an engine needs of its scripts, its first start does.
    *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"),
    *("--omit=dev", "--include=optional", "--logs-max=0", "--loglevel=http"),
    # Everything is checked against the lock's hashes, so what was downloaded once is as good as new.
    "--prefer-offline",
    # Three attempts as npm makes them, without its pauses of up to a minute.
    *("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=4000"),
)
#: seconds in which neither a package nor _MOVED_BYTES came: a network that swallows everything
STALL_SECONDS = 60.0
_MOVED_BYTES = 4096
#: seconds between two looks at how far it is, below what a person sees as standing still
_TICK_SECONDS = 0.2
#: lines of npm's errors that are kept; its stack traces are of no use to anybody here
_KEPT_LINES = 40
#: bytes that are kept of a line that does not end
_LINE_BYTES = 65536

_FETCHED = re.compile(r"npm http (?:fetch GET 200|cache) \S+\.tgz\b")
_ERROR = re.compile(r"(?:npm (?:error|ERR!)|bwrap:) ?(.*)")

_UNREACHABLE = frozenset(
    (
        *("ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH"),
        *("ERR_SOCKET_TIMEOUT", "EPIPE", "ENOTCACHED", "FETCH_ERROR", "ECONNABORTED", "EPROTO"),
    )
)
_FULL = frozenset(("ENOSPC", "EDQUOT"))
_ABSENT = frozenset(("E404", "ETARGET", "ENOVERSIONS"))


@dataclass(frozen=True, slots=True)
class Progress:
    """packages: of `total`, downloaded or taken from the cache. written_bytes: by npm so far."""

    packages: int
    total: int
    written_bytes: int
    seconds: float


@dataclass
class _Seen:
    """What npm's lines said so far."""

    packages: int = 0
    code: str = ""
    errors: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        if _FETCHED.match(line):
            self.packages += 1
        elif (error := _ERROR.match(line)) and len(self.errors) < _KEPT_LINES:
            self.errors.append(error[1])
            if error[1].startswith("code "):
                self.code = error[1].split()[1]


def install(
    npm: Sequence[str],
    folder: Path,
    *,
    cache: Path,
    total: int,
    progress: Callable[[Progress], None],
    keep_open: Sequence[int] = (),
    stall_seconds: float = STALL_SECONDS,
    start: Callable[[Sequence[str]], Command] = plain,
) -> None:
    """Fill folder/node_modules as folder/package-lock.json says. Raises InstallFailed.

    progress is called five times a second. keep_open: descriptors that live as long as npm does, also when
    this process is killed. start: as whom, and in what sandbox.
    """
    try:
        with start([*npm, "ci", *_OPTIONS, f"--cache={cache}"]) as how:
            process = subprocess.Popen(
                how.argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(*keep_open, *how.passed),
                # Ctrl-C comes here, and is passed on below.
                process_group=0,
                # Whoever processes run as has to be able to read it.
                umask=0o022,
                **how.options,
            )
    except OSError as error:
        raise InstallFailed(f"npm cannot be started: {error}", code="npm-missing") from None
    seen = _Seen()
    with process:
        try:
            _follow(process, folder, seen, total, progress, stall_seconds)
            process.wait()
        finally:
            _end(process)
    if process.returncode:
        raise _why(seen, process.returncode, folder)


def _follow(
    process: subprocess.Popen[bytes],
    folder: Path,
    seen: _Seen,
    total: int,
    progress: Callable[[Progress], None],
    stall_seconds: float,
) -> None:
    """Read npm's lines until their end."""
    began = moved_at = time.monotonic()
    packages = written = 0
    free = _free(folder)
    for line in _lines(process):
        if line is not None:
            seen.take(line)
            continue
        # Root in a container may not ask what another user's process has written.
        now, bytes_now = time.monotonic(), _written(process.pid) or max(0, free - _free(folder))
        if seen.packages > packages or bytes_now >= written + _MOVED_BYTES:
            moved_at, packages, written = now, seen.packages, bytes_now
        progress(Progress(seen.packages, total, bytes_now, now - began))
        if now - moved_at > stall_seconds:
            raise _unreachable(f"nothing came for {stall_seconds:g} seconds")


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str | None]:
    """npm's lines, and None after each tick, until it closes its end."""
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    fd, rest = process.stderr.fileno(), b""
    tick_at = time.monotonic()
    while True:
        pause = max(0.0, tick_at - time.monotonic())
        if select.select([fd], [], [], pause)[0]:
            data = os.read(fd, 65536)
            if not data:
                return
            *whole, rest = (rest + data).split(b"\n")
            rest = rest[-_LINE_BYTES:]
            yield from (line.decode(errors="replace") for line in whole)
        if time.monotonic() >= tick_at:
            tick_at = time.monotonic() + _TICK_SECONDS
            yield None


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bfree * found.f_frsize


def _written(pid: int) -> int:
    """Bytes that a process and its descendants have handed to write(2) (proc_pid_io(5)), or 0 where the
    kernel does not say."""
    total = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/io").read_text()
        total = int(text.partition("wchar:")[2].split()[0])
    with contextlib.suppress(OSError, ValueError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += _written(int(child))
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """See that npm has ended. By force at once: its cache stands that, and the rest is thrown away."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _unreachable(detail: str) -> InstallFailed:
    """The error of a network that does not answer."""
    return InstallFailed(
        f"npm cannot reach its registry ({detail})",
        code="npm-unreachable",
        hint="look at the network, and at what `npm config get registry` and `npm config get proxy` say, "
        "then run the same again: what was downloaded is kept",
        retry=True,
    )


def no_space(folder: Path) -> InstallFailed:
    """The error of a disk that filled up."""
    return InstallFailed(
        f"no space is left in {folder}",
        code="no-space",
        hint="free some, or choose another disk with MHNOS_ENGINES_DIR",
    )


def _why(seen: _Seen, status: int, folder: Path) -> InstallFailed:
    code = seen.code
    if code in _FULL:
        return no_space(folder)
    if code in _UNREACHABLE or code.startswith("E5"):
        return _unreachable(code)
    if code == "EINTEGRITY":
        return InstallFailed(
            "what npm was given is not what the lock says, and was refused",
            code="engine-altered",
            hint="run the same again; if it stays so, npm's registry serves something else: do not use it",
        )
    if code in _ABSENT:
        return InstallFailed(
            f"npm's registry does not have the pinned version ({code})",
            code="engine-unavailable",
            hint="look at what `npm config get registry` says; a mirror may be behind",
        )
    told = "; ".join(line for line in seen.errors[:4] if line) or f"it ended with {status}"
    return InstallFailed(f"npm failed: {told}", code="npm-failed", hint="run the same again")
