"""Requests that one answer settles, as methods. Must not know connections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, Unpack

from mhnos_runtime.client import push_pull
from mhnos_runtime.client.contents import Contents
from mhnos_runtime.client.errors import RequestFailed
from mhnos_runtime.client.files import Files
from mhnos_runtime.client.spawning import spawn_fields
from mhnos_runtime.client.types import SearchOptions, SpawnOptions
from mhnos_runtime.wire import messages as m

M = TypeVar("M", bound=m.Message)


class Requests(ABC):
    """What a runtime can be asked. Where a process is meant, its pid or its name does."""

    files: Files

    @abstractmethod
    async def request(
        self,
        message: m.Message,
        answer: type[M],
        *,
        resend: bool = False,
        on_answer: Callable[[m.Message], None] | None = None,
        timeout_s: float | None = None,
    ) -> M:
        """Send it and wait for its answer."""

    async def plan(self, kind: str, command: str = "", **options: Unpack[SpawnOptions]) -> m.Planned:
        """What `spawn` would execute, without doing it. Raises RequestFailed."""
        message = m.Plan(**spawn_fields(kind, command, options))
        return await self.request(message, m.Planned, resend=True)

    async def list(self, *, all: bool = False) -> Sequence[m.ProcessInfo]:  # noqa: A002 - the protocol's word
        """The processes, as rows of the protocol; all: also ended ones that are still kept."""
        return (await self.request(m.List(all=all), m.ProcessList, resend=True)).processes

    async def inspect(self, process: int | str) -> m.ProcessInfo:
        """Everything that the server knows of one process. Raises RequestFailed (unknown-process)."""
        return (await self.request(m.Inspect(pid=process), m.Inspected, resend=True)).process

    async def rename(self, process: int | str, name: str | None) -> int:
        """Give a process another name, or none; returns its pid. Raises RequestFailed (unknown-process,
        name-taken)."""
        # By its pid: after a first attempt whose answer was lost, its name is another one.
        pid = await self.pid(process)
        return (await self.request(m.Rename(pid=pid, name=name), m.Renamed, resend=True)).pid

    async def remove(self, process: int | str) -> int:
        """Forget an ended process with its output; returns its pid. Raises RequestFailed (unknown-process,
        still-running), and ConnectionLost where it is not known whether it was done."""
        return (await self.request(m.Remove(pid=process), m.Removed)).pid

    async def search(self, pattern: str, **options: Unpack[SearchOptions]) -> m.SearchResult:
        """The lines of kept output, also of ended processes, that match a pattern in RE2's syntax. Raises
        RequestFailed (invalid-argument, unknown-process)."""
        return await self.request(m.Search(pattern=pattern, **options), m.SearchResult, resend=True)

    async def pid(self, process: int | str) -> int:
        """The pid of the process with this name; of a pid itself, unasked. Raises RequestFailed
        (unknown-process)."""
        return process if isinstance(process, int) else (await self.inspect(process)).pid

    async def status(self) -> m.StatusAnswer:
        """The server's settings and counters."""
        return await self.request(m.Status(), m.StatusAnswer, resend=True)

    async def stats(self, process: int | str | None = None) -> Sequence[m.ProcessUsage]:
        """CPU time (ms), memory (bytes) and tasks of one process, or of all that run. Raises
        RequestFailed."""
        return (await self.request(m.Stats(pid=process), m.ProcessStats, resend=True)).processes

    async def push(self, files: Mapping[str, bytes | None]) -> m.PushResults:
        """Write files into the workspace; None makes a directory. One file's failure does not fail the rest.

        Raises RequestFailed when the server refuses the whole request.
        """
        results: m.PushResults = m.PushResults(synced=0, failed=0, errors=[])
        for batch in push_pull.batches(files):
            message = m.Fsync(operation="push", files=batch)
            push_pull.add(results, await self.request(message, m.FsyncResult, resend=True))
        for path, content in files.items():
            if content is not None and push_pull.is_large(content):
                await self._push_large(path, content, results)
        return results

    async def _push_large(self, path: str, content: bytes, results: m.PushResults) -> None:
        try:
            await self.files.write(path, content)
            results.synced += 1
        except RequestFailed as error:
            results.failed += 1
            results.errors.append(m.FileFailure(path, error.message))

    async def pull(self) -> dict[str, bytes | None]:
        """Every file of the workspace by path; None for a directory. All of it is in memory, whatever its
        size: `files.download_directory` brings it to a disk instead, and tells what cannot be read."""

        def work(contents: Contents) -> dict[str, bytes | None]:
            with contents.read_archive("/") as archive:
                return push_pull.pulled(archive)

        return await self.files.run(work)
