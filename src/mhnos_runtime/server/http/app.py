"""The shell of HTTP: for each request its row of the table, one gate, one check of the grant, and one place
that turns what goes wrong into an answer. Knows no domain: each contributes its rows."""

from __future__ import annotations

import contextlib
import logging
import secrets

from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog
from mhnos_runtime.server.auth.gate import Gate, RequestFacts
from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.refusals import Refusal
from mhnos_runtime.server.http import pages
from mhnos_runtime.server.http.call import GONE, Call, ending, offered_protocols
from mhnos_runtime.server.http.door import Visitor
from mhnos_runtime.server.http.problems import HttpError, defect, problem
from mhnos_runtime.server.http.routes import Match, NoRoute, Routes

#: Characters of what a stranger sent, in a line of the log.
_MAX_SHOWN = 200

_log = logs.get("server")


class App:
    """Answers what the table has; everything else is 404, behind the gate too."""

    def __init__(self, routes: Routes, gate: Gate, live: Live, log: LimitedLog) -> None:
        """log: for what strangers cause."""
        self._routes = routes
        self._gate = gate
        self._live = live
        self._stranger_log = log

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request whose head is complete."""
        visitor = _visitor(request)
        if visitor is None:
            return GONE
        with visitor.answering():
            try:
                response = await self._answer(request, visitor)
            except MhnosError as error:
                response = problem(error)
            except ConnectionError:
                return GONE
            except Exception:
                number = secrets.token_hex(8)
                self._stranger_log.exception("defect in a request", id=number)
                response = defect(number)
            if response is not GONE and not response.prepared:
                pages.address(response, self._gate.reader(_facts(request)))
            if not request.content.is_eof():
                visitor.linger()
                response.force_close()
            elif visitor.overran:
                response.force_close()
            return response

    async def _answer(self, request: web.BaseRequest, visitor: Visitor) -> web.StreamResponse:
        upgrade = "websocket" in (value.lower() for value in request.headers.getall(hdrs.UPGRADE, ()))
        found = self._routes.match(request.method, request.rel_url.raw_path, upgrade)
        asks = pages.is_preflight(request)
        facts = _facts(request, asks or (isinstance(found, Match) and found.row.needs is Access.OPEN))
        outcome = self._gate.check(facts)
        if isinstance(outcome, Refusal) or not outcome.known:
            visitor.estrange()
        else:
            visitor.welcome()
        if isinstance(outcome, Refusal):
            raise _refused(outcome, facts)
        if asks:
            return pages.preflight(request)
        if isinstance(found, NoRoute):
            raise _no_route(found)
        outcome.require(found.row.needs, writes=found.row.writes)
        call = Call(request, found.params, outcome, visitor, self._gate.reader(facts))
        # A WebSocket says why it ends, and so has its own place there.
        with contextlib.nullcontext() if upgrade else self._live.entered(outcome, ending(visitor)):
            response: web.StreamResponse = await found.row.handler(call)
        return response


def _visitor(request: web.BaseRequest) -> Visitor | None:
    """None: it has left."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    return protocol if isinstance(protocol, Visitor) else None


class BadRequests(logging.Filter):
    """For aiohttp's log: a request that is no HTTP is its sender's mistake, and worth a line without a
    traceback."""

    def __init__(self, log: LimitedLog) -> None:
        super().__init__()
        self._log = log

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        address = record.args[0] if isinstance(record.args, tuple) and record.args else None
        self._log.warning("bad request", address=address, reason=error.message.partition("\n")[0])
        return False


def _facts(request: web.BaseRequest, is_open: bool = False) -> RequestFacts:
    transport = request.transport
    local = transport.get_extra_info("sockname") if transport is not None else None
    return RequestFacts(
        remote_address=request.remote or "",
        hosts=tuple(request.headers.getall(hdrs.HOST, ())),
        origins=tuple(request.headers.getall(hdrs.ORIGIN, ())),
        authorizations=tuple(request.headers.getall(hdrs.AUTHORIZATION, ())),
        query_tokens=tuple(request.query.getall("token", ())),
        subprotocols=offered_protocols(request),
        local_address=local[0] if isinstance(local, tuple) else "",
        scheme="https" if transport is not None and transport.get_extra_info("sslcontext") else "http",
        open=is_open,
    )


def _no_route(found: NoRoute) -> HttpError:
    if found.allow:
        allow = ", ".join(found.allow)
        return HttpError(405, "method-not-allowed", f"This takes {allow}", {"Allow": allow})
    return HttpError(404, "not-found", "There is nothing here.")


def _refused(refusal: Refusal, facts: RequestFacts) -> HttpError:
    if refusal.report:
        _log.warning(
            "request refused",
            address=facts.remote_address,
            code=refusal.code,
            **_shown(refusal, facts),
            **({"unreported": refusal.unreported} if refusal.unreported else {}),
        )
    headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s else {}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return HttpError(refusal.status, refusal.code, refusal.text, headers, refusal.hint)


def _shown(refusal: Refusal, facts: RequestFacts) -> dict[str, str]:
    """What was not allowed, for a line of the log."""
    values = {"forbidden-host": ("host", facts.hosts), "forbidden-origin": ("origin", facts.origins)}
    name, sent = values.get(refusal.code, ("", ()))
    return {name: ", ".join(sent)[:_MAX_SHOWN]} if sent else {}
