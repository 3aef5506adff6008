"""A resumable upload by tus 1.0 (https://tus.io/protocols/resumable-upload), as a client. Knows its requests;
must not know what the uploaded file becomes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from mhnos_runtime.client import file_routes
from mhnos_runtime.client.attempts import Attempts
from mhnos_runtime.client.errors import ClientError, ConnectionLost, ProtocolViolation, SourceChanged
from mhnos_runtime.client.keepalive import KeepAlive
from mhnos_runtime.client.sources import exactly, read_up_to
from mhnos_runtime.wire.http import Head

MAX_ANSWER_BYTES = 64 * 1024  # of bodies, which say nothing
_VERSION = {"Tus-Resumable": "1.0.0"}
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


class Upload:
    """One upload of `size` bytes. `id` is the server's name for it, once it has begun."""

    def __init__(
        self,
        connection: KeepAlive,
        metadata: str,
        source: BinaryIO,
        size: int,
        progress: Callable[[int], object],
        resume: str | None,
    ) -> None:
        self._connection = connection
        self._metadata = metadata
        self._source = source
        self._progress = progress
        self.size = size
        self.id = _checked(resume) if resume is not None else None

    def run(self, begun: Callable[[str], object]) -> Head:
        """Send what the server has not got, until it says that it has all; returns the head of that answer.

        The last request may be an empty one: where its answer was lost, only another one tells what became of
        the file. Raises what another attempt cannot mend.
        """
        attempts = Attempts(self._connection.pause)
        position = 0
        while True:
            try:
                if self.id is None:
                    self.id = self._create()
                    begun(self.id)
                else:
                    position = self._position()
                answer = self._send(position)
                if (position := file_routes.offset(answer, self.size)) == self.size:
                    return answer
                raise ConnectionLost(f"the server has taken {position} of {self.size} bytes")
            except SourceChanged:
                self._give_up()
                raise
            except ClientError as error:
                # What was under way when the connection was lost may have arrived since its offset was asked.
                error.retry = error.retry or error.code == "offset-mismatch"
                attempts.failed(error, position)

    def _create(self) -> str:
        headers = {**_VERSION, "Upload-Length": str(self.size), "Upload-Metadata": self._metadata}
        head = self._ask("POST", file_routes.UPLOADS, {**headers, "Content-Length": "0"})
        # Only its name is taken: the token goes to the address that was asked, and to no other.
        return _checked((head.get("location") or "").rstrip("/").rpartition("/")[2])

    def _position(self) -> int:
        return file_routes.offset(self._ask("HEAD", self._route, _VERSION), self.size)

    def _send(self, position: int) -> Head:
        headers = {
            **_VERSION,
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(position),
        }
        rest = self.size - position
        exchange, head = self._connection.ask("PATCH", self._route, headers, self._pieces(position), rest)
        self._connection.whole(exchange, MAX_ANSWER_BYTES)
        return head

    def _pieces(self, position: int) -> Iterator[bytes]:
        self._source.seek(position)
        rest = self.size - position
        for piece in exactly(read_up_to(self._source, rest), rest):
            yield piece
            position += len(piece)
            self._progress(position)

    def _give_up(self) -> None:
        """Leave nothing behind; the server removes it after some time anyway."""
        with contextlib.suppress(ClientError):
            self._ask("DELETE", self._route, _VERSION)

    def _ask(self, method: str, route: str, headers: Mapping[str, str]) -> Head:
        exchange, head = self._connection.ask(method, route, headers)
        self._connection.whole(exchange, MAX_ANSWER_BYTES)
        return head

    @property
    def _route(self) -> str:
        return f"{file_routes.UPLOADS}/{self.id}"


def _checked(name: str) -> str:
    if not _ID.fullmatch(name):
        raise ProtocolViolation(f"{name[:80]!r} is no name of an upload")
    return name
