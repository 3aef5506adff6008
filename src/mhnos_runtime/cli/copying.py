"""Carries steps of a `cp` out: content between this machine, the workspace and streams. Knows both ends; not
what anybody typed.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO

from mhnos_runtime.cli import here, say
from mhnos_runtime.cli.copies import Step
from mhnos_runtime.cli.looking import change
from mhnos_runtime.cli.names import shown
from mhnos_runtime.cli.places import last_name
from mhnos_runtime.cli.progress import Progress
from mhnos_runtime.cli.unfinished import UploadNote
from mhnos_runtime.client import local_files
from mhnos_runtime.client.contents import Contents
from mhnos_runtime.client.direct import Direct
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import RequestFailed
from mhnos_runtime.client.sources import read_up_to
from mhnos_runtime.client.tar_stream import Excludes, nothing
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire import messages as m

PIECE_BYTES = 256 * 1024
#: Smaller files are sent at once, and begun anew after an interruption.
LARGE_BYTES = 16 * 1024 * 1024


class Copying:
    """Use as a context manager. replace: whether a file that is there may be replaced; one that may not is
    passed over, as cp -n does. verbose: a line for each step that was carried out. exclude: of directories
    into the workspace and out of it, as lines of .gitignore."""

    def __init__(
        self, where: Target, *, quiet: bool, replace: bool, verbose: bool, exclude: Sequence[str] = ()
    ) -> None:
        self._where, self._quiet, self._replace, self._verbose = where, quiet, replace, verbose
        self._exclude = exclude
        self._contents = Contents(where)

    def __enter__(self) -> Copying:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._contents.close()

    def carry_out(self, step: Step) -> bool:
        """Whether all of it was copied; what was not has been told. Raises MhnosError, OSError."""
        if step.replaces and not self._replace:
            if step.is_folder:
                raise InvalidRequest(f"-n is for files, and {step.to} is a directory that is there")
            return True
        whole = self._copy(step)
        if self._verbose:
            line = f"{shown(str(step.source))} -> {shown(str(step.to))}"
            print(line, file=sys.stderr if step.to.is_stream else sys.stdout, flush=True)
        return whole

    def _copy(self, step: Step) -> bool:
        if step.source.inside and step.to.inside:
            return self._copy_inside(step)
        if step.to.inside:
            return self._unpack_there(step) if step.is_folder else self._write_there(step)
        return self._unpack_here(step) if step.is_folder else self._write_here(step)

    # Inside the workspace

    def _copy_inside(self, step: Step) -> bool:
        """What stands there goes to the trash; a directory is not mixed with another one."""
        message = m.CopyFile(from_=step.source.path, to=step.to.path, replace=not step.is_folder)
        try:
            with Direct.open(self._where) as runtime:
                copied = change(runtime, message, m.FileCopied, step.to.path)
        except RequestFailed as error:
            if error.code == "already-exists" and step.is_folder:
                remove = f"`mhnos-runtime rm -r {shown(str(step.to))}`"
                hint = f"{remove} puts it into the trash; or name another target"
                raise RequestFailed(error.message, code=error.code, hint=hint) from None
            raise
        return _told(copied.skipped, copied.skipped_count)

    # Into the workspace

    def _write_there(self, step: Step) -> bool:
        to = step.to.path
        if step.source.is_stream:
            self._write(to, sys.stdin.buffer, "standard input")
            return True
        with open(step.source.path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):  # as of a shell's <(command)
                self._write(to, file, step.source.name)
            elif status.st_size < LARGE_BYTES:
                self._write(to, file, step.source.name, status)
            else:
                self._upload(step, file, status)
        return True

    def _write(self, to: str, file: BinaryIO, title: str, status: os.stat_result | None = None) -> None:
        size = status.st_size if status else None
        with Progress(title, size, quiet=self._quiet) as progress:
            pieces = _counted(_pieces(file) if size is None else read_up_to(file, size), progress)
            mode, mtime_ms = _attributes(status) if status else (None, None)
            self._contents.write(to, pieces, size=size, mode=mode, mtime_ms=mtime_ms)

    def _upload(self, step: Step, file: BinaryIO, status: os.stat_result) -> None:
        """By parts, and on from where an earlier command was interrupted."""
        note = UploadNote(self._where.url, step.to.path, step.source.path, status)
        mode, mtime_ms = _attributes(status)
        with Progress(step.source.name, status.st_size, quiet=self._quiet) as progress:

            def upload(resume: str | None) -> None:
                self._contents.upload(
                    step.to.path,
                    file,
                    size=status.st_size,
                    mode=mode,
                    mtime_ms=mtime_ms,
                    progress=progress.at,
                    resume=resume,
                    begun=note.keep,
                )

            try:
                _on_or_anew(upload, note)
            except KeyboardInterrupt:
                if progress.done:
                    progress.interrupted()
                raise
        note.drop()

    def _unpack_there(self, step: Step) -> bool:
        to = step.to.path
        if step.source.is_stream:
            with Progress("standard input", None, quiet=self._quiet) as progress:
                written = self._contents.write_archive(to, _counted(_pieces(sys.stdin.buffer), progress))
            return _told(written.failures, written.failed)
        folder = step.source.path
        excludes = self._excludes()
        total = None if self._quiet else _bytes_in(folder, excludes)
        with Progress(last_name(os.path.abspath(folder)), total, quiet=self._quiet) as progress:
            sent = local_files.upload_directory(self._contents, folder, to, progress.at, excludes)
        return _told(sent.skipped, sent.skipped_count)

    def _excludes(self) -> Excludes:
        """Raises Unavailable where RE2 is not installed."""
        if not self._exclude:
            return nothing
        from mhnos_runtime.files.ignore import Ignore

        return Ignore.of(self._exclude).says

    # Out of the workspace

    def _write_here(self, step: Step) -> bool:
        assert step.file is not None  # noqa: S101 - the source is in the workspace
        size, path = step.file.size, step.source.path
        with Progress(step.source.name, size, quiet=self._quiet) as progress:
            if step.to.is_stream:
                self._contents.download(path, sys.stdout.buffer, progress=progress.at)
                sys.stdout.buffer.flush()
            else:
                here.download(self._contents, self._where.url, step, progress)
        return True

    def _unpack_here(self, step: Step) -> bool:
        path = step.source.path
        with Progress(step.source.name or "workspace", None, quiet=self._quiet) as progress:
            if step.to.is_stream:
                self._print_archive(path, progress)
                return True
            got = local_files.download_directory(
                self._contents, path, step.to.path, progress.at, self._exclude
            )
        return _told(got.skipped, got.skipped_count)

    def _print_archive(self, path: str, progress: Progress) -> None:
        if sys.stdout.isatty():
            raise RequestFailed("an archive is not written to a terminal", hint="`| tar tv` lists it")
        with self._contents.read_archive(path, self._exclude) as archive:
            for piece in _counted(archive, progress):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _bytes_in(top: str, excludes: Excludes) -> int:
    """Of all files below it that are to be sent. What cannot be read is told of then."""
    total, folders = 0, [top]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                if excludes(os.path.relpath(entry.path, top), is_directory):
                    continue
                if is_directory:
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _on_or_anew(upload: Callable[[str | None], None], note: UploadNote) -> None:
    """Go on with an upload that was begun earlier; from its beginning where the server has forgotten it."""
    earlier = note.read()
    if earlier is not None:
        try:
            upload(earlier)
            return
        except RequestFailed as error:
            if error.code not in _FORGOTTEN:
                raise
            note.drop()
    upload(None)


_FORGOTTEN = ("not-found", "gone", "forbidden")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """As they come, also of a pipe that brings little at a time."""
    while piece := os.read(file.fileno(), PIECE_BYTES):
        yield piece


def _counted(pieces: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        progress.add(len(piece))


def _attributes(status: os.stat_result) -> tuple[int, int]:
    """Mode, and time of the last change in epoch ms."""
    return stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime_ns // 1_000_000


def _told(skipped: Iterable[tuple[str, str]], count: int) -> bool:
    """Say what could not be copied; whether that is nothing."""
    named = 0
    for path, why in skipped:
        say.error(f"not copied: {say.printable(path)}: {say.printable(why)}")
        named += 1
    if count > named:
        say.error(f"not copied: {count - named} more")
    return count == 0
