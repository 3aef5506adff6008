"""Runs `npm ci`, reports progress, and explains failures. Knows npm's output; knows no engine.

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

from mhnos_runtime.engines.confined import Invocation, plain
from mhnos_runtime.errors import InstallFailed

_OPTIONS = (
    # Packages run no scripts here. Where an engine needs its scripts, its first start does their work.
    *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"),
    *("--omit=dev", "--include=optional", "--logs-max=0", "--loglevel=http"),
    # Everything is checked against the lock's hashes, so a cached download is as good as a new one.
    "--prefer-offline",
    # Three attempts, npm's default, without its pauses of up to a minute.
    *("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=4000"),
)
#: seconds without a package or _MOVED_BYTES: the network drops everything
STALL_SECONDS = 60.0
_MOVED_BYTES = 4096
#: seconds between two reports of progress, so that a person sees it move
_TICK_SECONDS = 0.2
#: lines of npm's errors that are kept; its stack traces help nobody here
_KEPT_LINES = 40
#: bytes of an unfinished line that are kept
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
    """packages: how many of `total` were downloaded or found in the cache. written_bytes: by npm so far."""

    packages: int
    total: int
    written_bytes: int
    seconds: float


@dataclass
class _Seen:
    """What npm's lines have said so far."""

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
    start: Callable[[Sequence[str]], Invocation] = plain,
) -> None:
    """Fill folder/node_modules as folder/package-lock.json says. Raises InstallFailed.

    progress is called five times a second. keep_open: descriptors that stay open as long as npm lives, also
    when this process is killed. start: makes the command that runs as the right user in the right sandbox.
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
                # Ctrl-C reaches this process only, which passes it on below.
                process_group=0,
                # The user of processes must be able to read the result.
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
    """Read npm's lines until it closes its end."""
    began = moved_at = time.monotonic()
    packages = written = 0
    free = _free(folder)
    for line in _lines(process):
        if line is not None:
            seen.take(line)
            continue
        # In a container root may not read how much another user's process has written.
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
    """Bytes that a process and its descendants have passed to write(2) (proc_pid_io(5)); 0 if unknown."""
    total = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/io").read_text()
        total = int(text.partition("wchar:")[2].split()[0])
    with contextlib.suppress(OSError, ValueError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += _written(int(child))
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """End npm with SIGKILL: its cache survives that, and the rest is removed."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _unreachable(detail: str) -> InstallFailed:
    """The error of a network that does not answer."""
    return InstallFailed(
        f"npm cannot reach its registry ({detail})",
        code="npm-unreachable",
        hint="check the network, `npm config get registry` and `npm config get proxy`, "
        "then run the command again: downloads are kept",
        retry=True,
    )


def no_space(folder: Path) -> InstallFailed:
    """The error of a full disk."""
    return InstallFailed(
        f"no space is left in {folder}",
        code="no-space",
        hint="free some space, or choose another disk with MHNOS_ENGINES_DIR",
    )


def _why(seen: _Seen, status: int, folder: Path) -> InstallFailed:
    code = seen.code
    if code in _FULL:
        return no_space(folder)
    if code in _UNREACHABLE or code.startswith("E5"):
        return _unreachable(code)
    if code == "EINTEGRITY":
        return InstallFailed(
            "a package that npm downloaded does not match the lock, and was refused",
            code="engine-altered",
            hint="run the command again; if it fails again, npm's registry serves other files: do not use it",
        )
    if code in _ABSENT:
        return InstallFailed(
            f"npm's registry does not have the pinned version ({code})",
            code="engine-unavailable",
            hint="check `npm config get registry`; a mirror may be out of date",
        )
    told = "; ".join(line for line in seen.errors[:4] if line) or f"it ended with {status}"
    return InstallFailed(f"npm failed: {told}", code="npm-failed", hint="run the command again")
