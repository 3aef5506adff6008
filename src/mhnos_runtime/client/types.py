"""The values that callers get and give: chunks of output, sizes, exits. Must not know connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from mhnos_runtime.client.process import ClientProcess
    from mhnos_runtime.wire.messages import WorkerOptions

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class PtySize:
    """A terminal's size in character cells, each 1..2000."""

    cols: int = 80
    rows: int = 24


class SpawnOptions(TypedDict, total=False):
    """How to start a process; what is left out, or None, is as the kind or the server has it.

    name: what it can be called by instead of its pid. remove: the record and the output go once it has ended
    and those who watch it have read that. pty: a size, False for pipes, True for a terminal of the default
    size. linger_ms: end it so long after its last client has left. network: less than the server gives.
    limits: narrower than the server's own, by the names memory_bytes, tasks, cpu_percent (100: one CPU),
    cpu_seconds, file_bytes and open_files. ports: by name, 0 for any. worker: for a script of workerd.
    within: a process, or its pid or name, in whose sandbox it runs until that one ends; network and limits
    are that one's then.
    """

    args: Sequence[str]
    cwd: str | None
    env: Mapping[str, str] | None
    timeout_ms: int | None
    pty: PtySize | bool | None
    name: str | None
    linger_ms: int | None
    remove: bool
    network: Literal["host", "loopback", "none"] | None
    limits: Mapping[str, int] | None
    ports: Mapping[str, int] | None
    worker: WorkerOptions | None
    within: ClientProcess | int | str | None


class SearchOptions(TypedDict, total=False):
    """How to search; what is left out is off. fixed: the pattern is a text. processes: pids; else all. max:
    so many matches at most, 1000 where it is left out."""

    ignore_case: bool
    fixed: bool
    processes: list[int | str] | None
    max: int


class FileSearchOptions(TypedDict, total=False):
    """What to find; name, pattern, or both. name: a glob as in .gitignore. pattern: lines that match it, in
    RE2's syntax; fixed: it is a text; word: whole words only. only_matching: each part that matches, not its
    line. lines_before, lines_after: so many around each go along, 20 at most. ignored: look also at what
    .gitignore files name. max: so many matches at most, 1000 where it is left out."""

    name: str
    pattern: str
    fixed: bool
    word: bool
    ignore_case: bool
    only_matching: bool
    lines_before: int
    lines_after: int
    ignored: bool
    max: int


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes as the process wrote them; `offset` is the position of the first one in the output log.

    `replay`: they were written before this client attached for the first time. A terminal that shows them
    must not answer the questions in them; what a mere reconnection brings is no replay.
    """

    stream: Stream
    offset: int
    data: bytes
    replay: bool = False

    @property
    def next(self) -> int:
        """The position after the last byte: where an attach loses and doubles nothing."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Gap:
    """The bytes from_ <= position < to are no longer kept by the server."""

    from_: int
    to: int


@dataclass(frozen=True, slots=True)
class InputUncertain:
    """A server was killed while it typed `data`, the bytes from_ <= position < to of this client's input.

    Nobody knows whether the process has them, or only the first of them; they are not typed again.
    """

    pid: int
    from_: int
    to: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """How a process ended, and how that is known (`evidence`); None where the server cannot know.

    `failure`: "config" when the process found its configuration wrong.
    """

    code: int | None
    signal: str | None
    reason: str
    evidence: str = ""
    runtime_ms: int | None = None
    cpu_ms: int | None = None
    max_rss_bytes: int | None = None
    output_bytes: int | None = None
    failure: str = ""
