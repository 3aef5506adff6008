"""The content of files over HTTP, for one thread: files and archives of any size, both ways; resumed where a
connection was lost. Must not know sockets, nor an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import BinaryIO, TypeVar

import msgspec

from mhnos_runtime.client import file_routes, tus
from mhnos_runtime.client.attempts import Attempts
from mhnos_runtime.client.dial import SslOption
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ClientError, ProtocolViolation
from mhnos_runtime.client.exchange import Exchange
from mhnos_runtime.client.keepalive import KeepAlive
from mhnos_runtime.client.sources import exactly
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.http import Head

TIMEOUT_S = 60.0  # without a byte either way; the server's own patience with a transfer
MAX_ANSWER_BYTES = 4 * 1024 * 1024  # a hundred failures, each with a path of 4096 characters, escaped

T = TypeVar("T")


class ArchiveWritten(msgspec.Struct, frozen=True):
    """What became of the members of an archive. `failures`: (path, why), the first 100 of `failed`."""

    written: int
    bytes: int
    failed: int = 0
    failures: list[tuple[str, str]] = []


class _Written(msgspec.Struct):
    file: m.FileInfo


class Download:
    """Content as it comes: iterate over it once, inside `with`, for pieces of 256 KiB at most.

    `file`: which one it is; None for an archive, whose size nobody knows before its end. `size`, `version`,
    `mode`, `mtime_ms` are those of `file`. Raises ConnectionLost where it is cut off: what has come by then
    is good, and not all.
    """

    def __init__(self, connection: KeepAlive, exchange: Exchange, file: m.FileInfo | None) -> None:
        """Made by Contents."""
        self._connection = connection
        self._exchange: Exchange | None = exchange
        self.file = file

    @property
    def size(self) -> int | None:
        return self.file.size if self.file else None

    @property
    def version(self) -> str | None:
        return self.file.version if self.file else None

    @property
    def mode(self) -> int | None:
        return self.file.mode if self.file else None

    @property
    def mtime_ms(self) -> int | None:
        return self.file.mtime if self.file else None

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more of it."""
        if self._exchange is not None:
            self._connection.drop(self._exchange)
            self._exchange = None

    def __iter__(self) -> Iterator[bytes]:
        if self._exchange is None:
            return
        pieces = self._exchange.body()
        while (piece := self._next(pieces)) is not None:
            yield piece

    def _next(self, pieces: Iterator[bytes]) -> bytes | None:
        try:
            with self._connection.told():
                piece = next(pieces, None)
        except BaseException:
            self.close()
            raise
        if piece is None and self._exchange is not None:
            self._connection.give_back(self._exchange)
            self._exchange = None
        return piece


class Contents:
    """A context manager. Its methods raise RequestFailed (Conflict where a condition does not hold),
    Unauthorized, ConnectFailed, ConnectionLost, ProtocolViolation.

    Paths are those of the workspace. version: only if the file has it. absent: only if nothing is there.
    mode: permission bits. progress: is told the position in the content, in bytes; after a lost connection
    it may be less than before.
    """

    def __init__(self, target: Target, timeout_s: float = TIMEOUT_S, *, ssl_option: SslOption = True) -> None:
        """timeout_s: without a byte either way. Raises ConnectFailed for what is no address."""
        self._connection = KeepAlive(target, timeout_s, ssl_option)

    def __enter__(self) -> Contents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and what is still being read."""
        self._connection.close()

    def interrupt(self) -> None:
        """From another thread: end what is under way, with ConnectionLost there. Nothing can be asked after
        it."""
        self._connection.interrupt()

    @property
    def over(self) -> bool:
        """Whether it was closed or interrupted."""
        return self._connection.over

    # Files

    def read(self, path: str, *, start: int = 0, version: str | None = None) -> Download:
        """The file's content from byte `start` on. Not gone on with by itself: see `download`."""
        headers = file_routes.conditions(version)
        if start:
            headers["Range"] = f"bytes={start}-"
        exchange, head = self._connection.ask("GET", file_routes.route(path), headers)
        try:
            size = file_routes.whole_size(head, exchange.length, start)
            return Download(self._connection, exchange, file_routes.described(path, head, size))
        except BaseException:
            self._connection.drop(exchange)
            raise

    def download(
        self,
        path: str,
        sink: BinaryIO,
        *,
        start: int = 0,
        version: str | None = None,
        progress: Callable[[int], object] = int,
    ) -> m.FileInfo:
        """Write the file's content into `sink`, one version of it from the first byte to the last; gone on
        with over new connections. start: bytes of `version` that are there from an earlier time. Raises
        Conflict where it changed meanwhile, and what the sink does: what was written then is a part."""
        attempts = Attempts(self._connection.pause)
        position = start
        while True:
            try:
                with self.read(path, start=position, version=version) as content:
                    version = content.version
                    for piece in content:
                        sink.write(piece)
                        position += len(piece)
                        progress(position)
                    assert content.file is not None  # noqa: S101 - it is that of a file
                    return content.file
            except ClientError as error:
                attempts.failed(error, position)

    def write(
        self,
        path: str,
        source: Iterable[bytes],
        *,
        size: int | None = None,
        version: str | None = None,
        absent: bool = False,
        mode: int | None = None,
        mtime_ms: int | None = None,
    ) -> m.FileInfo:
        """Make it the file's content, whole or not at all; directories are made. size: of all of it; raises
        SourceChanged where that is not so. After ConnectionLost nobody knows whether it was written."""
        headers = {
            **file_routes.conditions(version, absent),
            **file_routes.attributes(mode, mtime_ms),
            "Content-Type": "application/octet-stream",
        }
        body = source if size is None else exactly(source, size)
        return self._put(file_routes.route(path), headers, body, size, _Written).file

    def upload(
        self,
        path: str,
        source: BinaryIO,
        *,
        size: int,
        version: str | None = None,
        absent: bool = False,
        mode: int | None = None,
        mtime_ms: int | None = None,
        progress: Callable[[int], object] = int,
        resume: str | None = None,
        begun: Callable[[str], object] = str,
    ) -> m.FileInfo:
        """As `write`, from a source that can be read again from any byte on: gone on with over new
        connections. begun: is told the upload's id, with which another program can go on: `resume`.

        Raises SourceChanged where the source is shorter than `size`."""
        metadata = file_routes.upload_metadata(path, version, absent, mode, mtime_ms)
        upload = tus.Upload(self._connection, metadata, source, size, progress, resume)
        return self._uploaded(path, upload.run(begun), size)

    # Directories

    def read_archive(self, path: str, exclude: Sequence[str] = ()) -> Download:
        """A directory with all that is in it, as a tar stream. What it leaves out is told in its last member,
        `.mhnos-skipped.txt`, but for what is excluded: lines as in .gitignore."""
        exchange, _ = self._connection.ask("GET", file_routes.route(path, "tar", exclude), {})
        return Download(self._connection, exchange, None)

    def write_archive(self, path: str, source: Iterable[bytes]) -> ArchiveWritten:
        """Unpack a tar stream into a directory, which is made if it is missing."""
        headers = {"Content-Type": "application/x-tar"}
        return self._put(file_routes.route(path, "tar"), headers, source, None, ArchiveWritten)

    # The answers

    def _put(
        self, route: str, headers: dict[str, str], body: Iterable[bytes], size: int | None, kind: type[T]
    ) -> T:
        exchange, _ = self._connection.ask("PUT", route, headers, body, size)
        answer = self._connection.whole(exchange, MAX_ANSWER_BYTES)
        try:
            return msgspec.json.decode(answer, type=kind)
        except (ValueError, RecursionError) as error:
            raise ProtocolViolation(f"an answer that was not understood: {error}") from error

    def _uploaded(self, path: str, head: Head, size: int) -> m.FileInfo:
        """The answer to the last part describes the file; else the file itself is looked at."""
        if not head.get("etag"):
            exchange, head = self._connection.ask("HEAD", file_routes.route(path), {})
            self._connection.give_back(exchange)
        return file_routes.described(path, head, size)
