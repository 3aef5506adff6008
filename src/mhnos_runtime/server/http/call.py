"""One HTTP request on its way to a handler, and what is known of it by then. Knows aiohttp, no route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web

from mhnos_runtime.server.auth.grants import Grant
from mhnos_runtime.server.http.door import Visitor


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler of a route is given, which answers or raises MhnosError. params: of the row's pattern.

    A body is read from the request, as aiohttp does it. The door takes 10 s and 64 KiB for the whole of it.
    """

    request: web.BaseRequest
    params: Mapping[str, str]
    grant: Grant
    visitor: Visitor


class _Gone(web.Response):
    """The answer of a connection that is not, or not any more, one of HTTP."""

    async def prepare(self, _request: web.BaseRequest, /) -> None:
        """Say that the connection is gone; any other error would be logged as a defect."""
        raise ConnectionResetError


GONE = _Gone()


def offered_protocols(request: web.BaseRequest) -> tuple[str, ...]:
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()))
    return tuple(item.strip() for item in offered.split(",") if item.strip())
