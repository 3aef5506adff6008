"""Requests to search what processes have written: reads logs on the event loop, matches in threads, a little
at a time. Knows no pattern's syntax."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from mhnos_runtime.launch import STDERR, STDOUT
from mhnos_runtime.output import Chunk, Cursor
from mhnos_runtime.output.layout import BURST_BYTES
from mhnos_runtime.patterns import compiled
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.files.work import FileWork, Job
from mhnos_runtime.server.processes.searching import Found, LineSearch
from mhnos_runtime.wire import messages as m

#: How long one search may take; half a page of output takes no longer than a person waits.
MAX_SECONDS = 5.0
#: Lines in one answer, bytes: what may wait for a client that does not read, see Sender.
MAX_ANSWER_BYTES = 1 << 20
#: Chunks that are read in one go: some ms of the event loop, where each is a line.
BATCH_CHUNKS = 512

_NAMES: dict[int, m.Stream] = {STDOUT: "stdout", STDERR: "stderr"}


class SearchRequests:
    """Searches of all connections; one at a time for each of them."""

    def __init__(self, table: ProcessTable, work: FileWork) -> None:
        self._table = table
        self._work = work
        self._turns: WeakKeyDictionary[Connection, asyncio.Lock] = WeakKeyDictionary()

    def rows(self) -> Rows:
        return {m.Search: Row(Scope.VIEW, self.search)}

    def search(self, connection: Connection, request: m.Search) -> None:
        connection.later(self._answered(connection, request), request)

    async def _answered(self, connection: Connection, request: m.Search) -> m.SearchResult:
        async with self._turns.setdefault(connection, asyncio.Lock()):
            if request.processes is None:
                processes = [each for each in self._table if connection.grant.sees(each.pid)]
            else:
                processes = list({connection.find(handle): None for handle in request.processes})
            with self._work.begin(lambda: None, connection) as job:
                return await self._searched(job, processes, request)

    async def _searched(self, job: Job, processes: list[Process], request: m.Search) -> m.SearchResult:
        [pattern] = await job.all(_compiled(request))
        result = m.SearchResult([], 0, id=request.id)
        until = asyncio.get_running_loop().time() + MAX_SECONDS
        left, left_bytes = request.max, MAX_ANSWER_BYTES
        for process in sorted(processes, key=lambda each: each.pid):
            search = LineSearch(pattern, left, left_bytes)
            found = await self._search(job, process, search, result, until)
            result.matches += [_match(process.pid, each) for each in sorted(found)]
            left, left_bytes = search.left, search.left_bytes
            if result.truncated:
                break
        return result

    async def _search(
        self, job: Job, process: Process, search: LineSearch, result: m.SearchResult, until: float
    ) -> list[Found]:
        """Up to what has been written by now; `result` is told how much that was, and whether it was too
        much."""
        found: list[Found] = []
        # Not its log, which is closed once the process is not kept any more.
        if self._table.get(process.pid) is not process:
            return found
        cursor, head = Cursor(process.log, process.log.tail), process.log.head
        while self._table.get(process.pid) is process and cursor.offset < head:
            if search.full or asyncio.get_running_loop().time() >= until:
                result.truncated = True
                return found
            chunks, whole = _batch(cursor, head)
            result.searched_bytes += sum(len(chunk.data) for chunk in chunks)
            steps = search.feed(chunks)
            found += filter(None, await job.all(steps if whole else itertools.chain(steps, search.end())))
        found += filter(None, await job.all(search.end()))
        result.truncated = search.full
        return found


def _batch(cursor: Cursor, head: int) -> tuple[list[Chunk], bool]:
    """The next chunks, and whether what follows them is still there."""
    chunks: list[Chunk] = []
    end = min(head, cursor.offset + BURST_BYTES)
    while cursor.offset < end and len(chunks) < BATCH_CHUNKS:
        item = cursor.take(end - cursor.offset)
        if not isinstance(item, Chunk):
            return chunks, False
        chunks.append(item)
    cursor.log.forget()
    return chunks, True


def _compiled(request: m.Search) -> Iterator[Any]:
    yield compiled(request.pattern, fixed=request.fixed, ignore_case=request.ignore_case)


def _match(pid: int, found: Found) -> m.SearchMatch:
    return m.SearchMatch(pid, _NAMES[found.stream], found.offset, found.time_ms, found.line)
