"""One HTTP request on its way to a handler, and what is known of it by then. Knows aiohttp, no route."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web

from mhnos_runtime.server.auth.grants import Access, Grant
from mhnos_runtime.server.http import pages
from mhnos_runtime.server.http.door import Visitor
from mhnos_runtime.server.http.problems import HttpError

#: Bytes of a body that are worth a turn of a thread. One read of the socket has up to 256 KB.
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler of a route is given, which answers or raises MhnosError. params: of the row's pattern.
    reader: the origin whose pages may read the answer.

    A small body is read from the request, as aiohttp does it: the door takes 10 s and 64 KiB for the whole of
    it. Anything else is a transfer.
    """

    request: web.BaseRequest
    params: Mapping[str, str]
    grant: Grant
    visitor: Visitor
    reader: str | None = None

    async def begin(self, response: web.StreamResponse) -> None:
        """Send the head of an answer whose body the handler writes itself."""
        pages.address(response, self.reader)
        await response.prepare(self.request)

    @contextlib.contextmanager
    def transfer(self) -> Iterator[None]:
        """While a body of any size goes in or out, until the client has stalled for 60 s (STALL_SECONDS). The
        reading of `pieces` and the writing of a StreamResponse belong inside. Raises LimitReached, and
        Forbidden for a stranger."""
        self.grant.require(Access.GRANTED)
        with self.visitor.transfer(self.grant.principal):
            yield

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, in pieces of 64 KiB to 1 MiB, the last one shorter. No more is read from the network
        while nobody asks for the next piece. Raises ConnectionError, behind all that came, where the client
        left before the end, and HttpError for a body that is encoded."""
        await self._ask_for_body()
        waiting = bytearray()
        try:
            while piece := await self._some():
                if not waiting and len(piece) >= PIECE_BYTES:
                    yield piece
                    continue
                waiting += piece
                if len(waiting) >= PIECE_BYTES:
                    yield bytes(waiting)
                    waiting.clear()
        except ConnectionError:
            if waiting:
                yield bytes(waiting)
            raise
        if waiting:
            yield bytes(waiting)

    async def _some(self) -> bytes:
        """What has come of the body, b"" at its end."""
        with self.visitor.awaited(self._broken):
            return await self.request.content.readany()

    def _broken(self) -> bool:
        """aiohttp queues its answer to chunks that are wrong, and leaves the reader of the body waiting."""
        return bool(self.request.protocol._messages) and not self.request.content.is_eof()

    async def _ask_for_body(self) -> None:
        """RFC 9110, 10.1.1 and 8.4.1."""
        headers = self.request.headers
        if (encoding := headers.get(hdrs.CONTENT_ENCODING, "identity").lower()) != "identity":
            text = f"No Content-Encoding is understood: {encoding}"
            raise HttpError(415, "unsupported-encoding", text, hint="send the content as it is")
        if headers.get(hdrs.EXPECT, "").lower() == "100-continue" and self.request.content.total_bytes == 0:
            await self.request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.request.writer.output_size = 0


class _Gone(web.Response):
    """The answer of a connection that is not, or not any more, one of HTTP."""

    async def prepare(self, _request: web.BaseRequest, /) -> None:
        """Say that the connection is gone; any other error would be logged as a defect."""
        raise ConnectionResetError


GONE = _Gone()


def ending(visitor: Visitor) -> Callable[[], None]:
    """Ends the request that is being answered: its handler goes no further, and nothing more is sent."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a handler runs in one

    def end() -> None:
        visitor.close()
        task.cancel()

    return end


def offered_protocols(request: web.BaseRequest) -> tuple[str, ...]:
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()))
    return tuple(item.strip() for item in offered.split(",") if item.strip())
