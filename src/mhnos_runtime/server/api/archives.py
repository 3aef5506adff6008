"""Directories as one stream of HTTP, both ways. Knows headers and the pool; what an archive is, and what may
be unpacked, is known elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from aiohttp import web

from mhnos_runtime.errors import InvalidRequest, MhnosError
from mhnos_runtime.files.archives.transfer import Receiving, Sending, form_of
from mhnos_runtime.files.archives.unpack import Unpacked
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.server.files.reach import reach
from mhnos_runtime.server.files.work import FileWork, Job
from mhnos_runtime.server.http.call import Call

#: Read in one turn of a thread, and sent before the next: one archive takes so much memory. With both at the
#: same time, or with more, the threads wait for each other and for memory: it took longer.
TURN_BYTES = 1 << 18
#: Of an upload: worth a turn of a thread.
FEED_BYTES = 1 << 18

_TYPES = {"tar": "application/x-tar", "zip": "application/zip"}


class Archives:
    def __init__(self, workspace: Workspace, work: FileWork) -> None:
        self._workspace = workspace
        self._work = work

    async def download(self, call: Call, path: str, form: str) -> web.StreamResponse:
        """Send the directory. Where it cannot be whole any more, the connection is cut."""
        kind = form_of(form)
        exclude = call.request.query.getall("exclude", [])
        sending = Sending(reach(self._workspace, call.grant), path, kind, exclude)
        with self._work.begin(sending.close, call.visitor) as job, call.transfer():
            await job.all(_once(sending.open))
            response = web.StreamResponse(headers=_head(path, kind))
            await call.begin(response)
            if call.request.method != "HEAD":
                await _send(call, job, sending, response)
            await response.write_eof()
        return response

    async def upload(self, call: Call, path: str, form: str) -> web.StreamResponse:
        """Unpack what comes into the directory, which is made if it is missing."""
        if "exclude" in call.request.query:
            raise InvalidRequest("An archive is unpacked whole", hint="leave out what is not wanted of it")
        receiving = Receiving(reach(self._workspace, call.grant), path, form_of(form))
        with self._work.begin(receiving.close, call.visitor) as job, call.transfer():
            await job.all(_once(lambda: receiving.open(call.request.content_length or 0)))
            waiting = bytearray()
            async for piece in call.pieces():
                waiting += piece
                if len(waiting) >= FEED_BYTES:
                    await job.result(receiving.feed(bytes(waiting)))
                    waiting.clear()
            await job.result(receiving.feed(bytes(waiting)))
            done = await job.result(receiving.finish())
        return web.json_response(_shown(done))


async def _send(call: Call, job: Job, sending: Sending, response: web.StreamResponse) -> None:
    try:
        while pieces := (await job.turn(sending.some(TURN_BYTES)))[0]:
            for piece in pieces:
                if piece:
                    await response.write(piece)
    except MhnosError as error:
        call.visitor.close()
        raise ConnectionResetError(error.message) from error


def _once(act: Callable[[], object]) -> Iterator[None]:
    """A call that blocks for some ms at most, as steps."""
    act()
    yield


def _head(path: str, form: str) -> dict[str, str]:
    name = quote((path.rstrip("/").rpartition("/")[2] or "workspace") + "." + form)
    return {
        "Cache-Control": "no-store",
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Security-Policy": "sandbox",
        "Content-Type": _TYPES[form],
    }


def _shown(done: Unpacked) -> dict[str, Any]:
    return {
        "written": done.written,
        "bytes": done.bytes,
        "failed": done.failed,
        "failures": done.failures,
    }
