"""The table of requests: what each needs of a grant, and who does it. Knows no domain: each contributes its
rows, as for routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.server.auth.grants import Grant, Need, Whole
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.files.fsync import Upload
from mhnos_runtime.wire import messages as m

#: Gives the answer, or None where it sees to it itself or there is none.
Handler = Callable[[Connection, Any], m.Message | Awaitable[m.Message | None] | None]


class Row(NamedTuple):
    """A request: what a grant must have for it, and what it does. whole: it is about all processes, or all
    paths, and so not for a grant that is limited to some. writes: files are changed."""

    needs: Need
    handler: Handler
    whole: Whole = ""
    writes: bool = False


Rows: TypeAlias = Mapping[type[m.Message], Row]


class Domain(Protocol):
    """What has requests to contribute."""

    def rows(self) -> Rows: ...


class Requests:
    """All requests of one server.

    Frames of input need what m.Write needs; a repaint what m.Resize needs; a push that is too large to be
    gathered what m.Fsync needs. receive: carries that push out.
    """

    def __init__(
        self, rows: Iterable[Rows], receive: Callable[[Connection, Upload], Awaitable[None]]
    ) -> None:
        self.rows = {kind: row for each in rows for kind, row in each.items()}
        self.receive = receive

    def check(self, grant: Grant, kind: type[m.Message]) -> None:
        """Whether a request of this kind may be made. Raises Forbidden."""
        row = self.rows[kind]
        grant.require(row.needs, row.whole, writes=row.writes)

    def handle(self, connection: Connection, request: m.Request) -> Awaitable[None] | None:
        """Do what a request asks and see to its answer, or return what has to be awaited for that.

        What goes wrong is answered.
        """
        try:
            self.check(connection.grant, type(request))
            result = self.rows[type(request)].handler(connection, request)
        except MhnosError as error:
            _fail(connection, request, error)
            return None
        if result is None:
            return None
        if not isinstance(result, m.Message):
            return _awaited(connection, request, result)
        connection.answer(result)
        return None


async def _awaited(connection: Connection, request: m.Request, work: Awaitable[m.Message | None]) -> None:
    """The next request is not begun before this one is done, so that its answer has its place."""
    try:
        answer = await work
    except MhnosError as error:
        _fail(connection, request, error)
    else:
        if answer is not None:
            connection.answer(answer)


def _fail(connection: Connection, request: m.Request, error: MhnosError) -> None:
    handle = getattr(request, "pid", None)
    if isinstance(handle, str):
        handle = connection.pid(handle) or None
    connection.fail(error, request, pid=handle)
