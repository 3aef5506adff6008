"""One archive on its way out of the workspace, or into it, whatever its format, in steps that block for some
ms. Knows no event loop: another thread than the one that opens it may ask for its end."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from typing import Literal, TypeAlias

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.archives.tar import stream as tar_stream
from mhnos_runtime.files.archives.unpack import Unpack, Unpacked
from mhnos_runtime.files.archives.untar import Untar
from mhnos_runtime.files.archives.unzip import Unzip
from mhnos_runtime.files.archives.zip import stream as zip_stream
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import Ignore
from mhnos_runtime.files.paths import explained
from mhnos_runtime.files.space import Space
from mhnos_runtime.files.steps import Steps

Form: TypeAlias = Literal["tar", "zip"]
_STREAMS = {"tar": tar_stream, "zip": zip_stream}


def form_of(text: str) -> Form:
    """Raises InvalidRequest."""
    if text == "tar":
        return "tar"
    if text == "zip":
        return "zip"
    raise InvalidRequest("No such kind of archive", hint="?archive=tar or ?archive=zip")


class Sending:
    """A directory as an archive: open(), then `some`. exclude: lines as in .gitignore, from there."""

    def __init__(self, workspace: Workspace, path: str, form: Form, exclude: Sequence[str] = ()) -> None:
        self._workspace, self._path, self._form = workspace, path, form
        self._exclude = exclude
        self._top = -1
        self._stream: Generator[bytes] | None = None

    def open(self) -> None:
        """Raises as Workspace does, and Unavailable where RE2 is not installed."""
        exclude = Ignore.of(self._exclude)
        self._top = self._workspace.open_dir(self._path, listing=True)
        self._stream = _STREAMS[self._form](self._top, exclude)

    def some(self, size: int) -> Iterator[bytes]:
        """At least so many bytes of it, in pieces; none at the end. Raises MhnosError where it can never be
        whole."""
        for piece in self._stream or ():
            yield piece
            size -= len(piece)
            if size <= 0:
                return

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            os.close(self._top)
            self._stream = None


class Receiving:
    """An archive that becomes a directory: open(), feed() each piece, finish(). Raises what Unpack, Untar and
    Unzip raise; what was written by then stays."""

    def __init__(self, workspace: Workspace, path: str, form: Form) -> None:
        self._workspace, self._path, self._form = workspace, path, form
        self._unpack: Unpack | None = None
        self._untar = Untar()
        self._spare = -1
        self._space = Space(workspace.min_free)

    @property
    def unpack(self) -> Unpack:
        assert self._unpack is not None  # noqa: S101 - it is opened first
        return self._unpack

    def open(self, coming: int) -> None:
        """coming: bytes of the whole archive, 0 where nobody knows."""
        with explained(self._path):
            self._unpack = Unpack(self._workspace, self._path)
            self.unpack.require_space(coming)
            if self._form == "zip":
                self._spare = self.unpack.spare()

    def feed(self, piece: bytes) -> Steps[None]:
        with explained(self._path):
            if self._form == "tar":
                yield from self.unpack.take(self._untar.feed(piece))
            else:
                self._spool(piece)

    def finish(self) -> Steps[Unpacked]:
        with explained(self._path):
            if self._form == "tar":
                self._untar.finish()
            else:
                unzip = Unzip(self._spare)
                yield from unzip.check()
                self.unpack.require_space(unzip.total)
                yield from self.unpack.take(unzip.events())
            yield from self.unpack.finish()
        return self.unpack.result

    def close(self) -> None:
        if self._unpack is not None:
            self._unpack.close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _spool(self, piece: bytes) -> None:
        """The directory of a zip archive is at its end: it is kept until that has come."""
        self._space.look(self._spare, len(piece))
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._spare, rest) :]
