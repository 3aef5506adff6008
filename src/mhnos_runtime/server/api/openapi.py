"""The routes that describe all others: for programs that make clients or tests of that, and for people."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from aiohttp import web

from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.openapi import document
from mhnos_runtime.server.http.reference import POLICY, page
from mhnos_runtime.server.http.routes import About, Reply, Row
from mhnos_runtime.wire.messages import PROTOCOL

_ABOUT = About("This description", gives={200: Reply("OpenAPI 3.1", "application/json", {"type": "object"})})
_ABOUT_PAGE = About(
    "This description, as a page", gives={200: Reply("HTML", "text/html", {"type": "string"})}
)
#: Nothing is loaded; and the address, which may have a token in it, is told to nobody.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class OpenApiRoute:
    def __init__(self, rows: Iterable[Row], base_path: str) -> None:
        """rows: all others."""
        made = document([*rows, *self.rows()], base_path, str(PROTOCOL))
        self.text = msgspec.json.format(msgspec.json.encode(made)) + b"\n"
        self.page = page(msgspec.json.decode(self.text))

    def rows(self) -> tuple[Row, ...]:
        return (
            Row("GET", "/v1/openapi.json", Access.GRANTED, self._show, about=_ABOUT),
            Row("GET", "/v1/openapi", Access.GRANTED, self._show_page, about=_ABOUT_PAGE),
        )

    async def _show(self, _call: Call) -> web.Response:
        return web.Response(body=self.text, content_type="application/json")

    async def _show_page(self, _call: Call) -> web.Response:
        return web.Response(text=self.page, content_type="text/html", headers=_HEADERS)
