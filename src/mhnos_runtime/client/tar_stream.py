"""Directories of this machine as tar streams, both ways. Blocks; must not know where a stream comes from or
goes to."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, BinaryIO, cast

from mhnos_runtime.client.errors import ProtocolViolation, SourceChanged
from mhnos_runtime.client.sources import READ_BYTES, exactly, read_up_to

#: The last member of a download, if something was left out: lines "path: why".
SKIPPED = ".mhnos-skipped.txt"
MAX_SKIPPED_BYTES = 16 * 1024 * 1024
MAX_SKIPPED = 1000  # that are named
#: Of files that are read whole before their size is told, so that one that is written meanwhile goes along.
_SMALL_BYTES = 1024 * 1024
_BLOCK_BYTES = 512
#: Of one extended header, which tarfile reads as a whole. A name and a target have 8 KiB at most.
_MAX_EXTENDED_BYTES = 1024 * 1024
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
#: Folders around a member; as many as the server takes. os.makedirs calls itself for each.
_MAX_DEPTH = 256
#: Behind an archive come some empty blocks, which are read so that its connection can be used again.
_TAIL_READS = 4
#: A member that cannot be made where it belongs, as a file where a directory stands: the others can.
_ITS_OWN = (
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENOTEMPTY,
)
#: Epoch seconds that each file system can keep.
_LATEST_S = 2.0**31
_END = bytes(2 * _BLOCK_BYTES)
#: What a member may allow to others.
_MODES = 0o755

#: Whether a path of a directory is left out, with all that is in it: the path from there, and whether a
#: directory is at it.
Excludes = Callable[[str, bool], object]


@dataclass(slots=True)
class Transferred:
    """What went one way: `files`, with directories and links; `bytes` of all files; `skipped`: (path, why) of
    the first 1,000 of `skipped_count`."""

    files: int = 0
    bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_count: int = 0

    def skip(self, path: str, why: str) -> None:
        """Note something that did not go along."""
        self.skipped_count += 1
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append((path, why))


class Stream(io.RawIOBase):
    """Pieces as a file that is read from its beginning to its end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        into = memoryview(cast("bytearray", buffer))
        while not self._piece:
            if (piece := next(self._pieces, None)) is None:
                return 0
            self._piece = memoryview(piece)
        size = min(len(into), len(self._piece))
        into[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size


# Reading


class _Member(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > _MAX_EXTENDED_BYTES:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


def members(pieces: Iterable[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each member of a tar stream, with its content where it is a file. To be used inside `understood`."""
    buffered = io.BufferedReader(Stream(pieces), READ_BYTES)
    with tarfile.open(fileobj=buffered, mode="r|", bufsize=READ_BYTES, tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # it would keep them all
            yield member, archive.extractfile(member) if member.isreg() else None
    for _ in range(_TAIL_READS):
        if not buffered.read(READ_BYTES):
            break


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """While members are taken, and their content. Raises ProtocolViolation for what is no tar, or not all of
    one."""
    try:
        yield
    except tarfile.TarError as error:
        raise ProtocolViolation(f"the archive is damaged: {error}") from error


def unpack(pieces: Iterable[bytes], directory: str, progress: Callable[[int], object] = int) -> Transferred:
    """Unpack a tar stream into a directory that is there. Nothing is written outside it: absolute paths,
    links that lead out, hard links, devices are skipped. Raises OSError, ProtocolViolation, and what `pieces`
    raises: then a part is there."""
    unpacking = _Unpacking(directory, progress)
    with understood():
        for member, content in members(pieces):
            unpacking.take(member, content)
    return unpacking.finish()


class _Unpacking:
    """Links are made last, and directories get their times then: no file is written through a link of the
    archive, nor into a directory that is closed already."""

    def __init__(self, directory: str, progress: Callable[[int], object]) -> None:
        self._directory = directory
        self._progress = progress
        self._done = Transferred()
        self._links: list[tarfile.TarInfo] = []
        self._directories: list[tarfile.TarInfo] = []
        self._last: bytes | None = None  # what may be the list of what was skipped, if nothing follows it
        self._last_member: tarfile.TarInfo | None = None

    def take(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        self._flush()
        if os.path.normpath(member.name) == SKIPPED and content and member.size <= MAX_SKIPPED_BYTES:
            self._last, self._last_member = content.read(), member
            return
        if member.islnk() or not (member.isreg() or member.isdir() or member.issym()):
            self._skip(member, "neither a file, a directory nor a symbolic link")
        elif self._is_safe(member):
            if member.issym():
                self._links.append(member)
            else:
                self._make(member, content)

    def _make(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        try:
            if content is not None:
                self._write(member, content)
            else:
                os.makedirs(self._place(member), exist_ok=True)
                self._directories.append(member)
                self._done.files += 1
        except OSError as error:
            if error.errno not in _ITS_OWN:
                raise
            self._skip(member, os.strerror(error.errno))

    def finish(self) -> Transferred:
        if self._last is not None:
            for line in self._last.decode(errors="replace").splitlines():
                self._done.skip(*_parted(line))
        for link in self._links:
            self._link(link)
        for member in reversed(self._directories):
            os.utime(self._place(member), ns=_times(member.mtime))
        return self._done

    def _flush(self) -> None:
        """Something follows, so that it was a file of that name."""
        if self._last is not None and self._last_member is not None:
            if self._is_safe(self._last_member):
                self._make(self._last_member, io.BytesIO(self._last))
            self._last = self._last_member = None

    def _is_safe(self, member: tarfile.TarInfo) -> bool:
        """Whether it belongs into the directory, also with the links that stand there; else it is noted.
        Python 3.11.2, which is Debian's, has no tarfile.data_filter."""
        why, place = _unusable(member), self._place(member)
        if not why and not self._is_inside(
            os.path.realpath(place if member.isdir() else os.path.dirname(place))
        ):
            why = "it leads out of the directory"
        if why:
            self._skip(member, why)
        return not why

    def _write(self, member: tarfile.TarInfo, content: IO[bytes]) -> None:
        """Beside its place, then renamed: a link that stands there is replaced, not followed."""
        place = self._place(member)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with beside(place) as file:
            while piece := content.read(READ_BYTES):
                file.write(piece)
                self._done.bytes += len(piece)
                self._progress(self._done.bytes)
            settle(file, member.mode & _MODES | stat.S_IRUSR | stat.S_IWUSR, member.mtime)
        self._done.files += 1

    def _link(self, member: tarfile.TarInfo) -> None:
        """Where it is, and where it leads, is looked at with the links that were made before it. Its text has
        no name that a `..` takes back: a link of that name would turn the `..` into a way out."""
        asked = self._place(member)
        folder, target = os.path.realpath(os.path.dirname(asked)), os.path.normpath(member.linkname)
        if not (self._is_inside(folder) and self._is_inside(os.path.join(folder, target))):
            self._skip(member, "a link that leads out of the directory, or through one")
            return
        place = os.path.join(folder, os.path.basename(asked))
        try:
            os.makedirs(folder, exist_ok=True)
            if os.path.islink(place) or os.path.isfile(place):
                os.unlink(place)
            os.symlink(target, place)
            self._done.files += 1
        except OSError as error:
            self._skip(member, error.strerror or str(error))

    def _is_inside(self, path: str) -> bool:
        """path: absolute, and through no link."""
        top = os.path.realpath(self._directory)
        return os.path.commonpath((top, os.path.normpath(path))) == top

    def _place(self, member: tarfile.TarInfo) -> str:
        return os.path.join(self._directory, os.path.normpath(member.name))

    def _skip(self, member: tarfile.TarInfo, why: str) -> None:
        self._done.skip(member.name, why)


def _unusable(member: tarfile.TarInfo) -> str:
    """Why no file can have its name, or no link its target; "" where one can."""
    if "\0" in member.name + member.linkname:
        return "a name with a NUL character"
    if member.name.startswith("/"):
        return "an absolute path"
    if os.path.normpath(member.name) == "." and not member.isdir():
        return "it has no name"
    return f"in more than {_MAX_DEPTH} folders" if member.name.count("/") > _MAX_DEPTH else ""


def draft_of(place: str) -> str:
    """A name beside `place` for what is to stand there when it is whole."""
    folder, name = os.path.split(place)
    return os.path.join(folder, f".{name[:60]}.{os.urandom(6).hex()}.part")


@contextlib.contextmanager
def beside(place: str) -> Iterator[BinaryIO]:
    """A new file beside `place`, which takes its name at the end, and is gone where that is not reached.
    Raises OSError."""
    draft = draft_of(place)
    with open(draft, "xb") as file:
        try:
            yield file
            file.close()
            os.replace(draft, place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise


def settle(file: BinaryIO, mode: int, mtime_s: float) -> None:
    """Give a written file its permission bits and its time; the bits that let it run as somebody else are
    not taken over."""
    file.flush()
    os.fchmod(file.fileno(), mode & 0o777)
    os.utime(file.fileno(), ns=_times(mtime_s))


def _times(mtime_s: float) -> tuple[int, int]:
    """In ns, of access and change, to the microsecond: a float has no more. 0 for what is no number."""
    mtime_s = min(mtime_s, _LATEST_S) if mtime_s > 0 else 0.0
    return (round(mtime_s * 1_000_000) * 1000,) * 2


def _parted(line: str) -> tuple[str, str]:
    path, _, why = line.rpartition(": ")
    return (path, why) if path else (line, "")


# Writing


def nothing(_path: str, _is_directory: bool) -> bool:
    """Excludes nothing."""
    return False


def pack(
    directory: str,
    done: Transferred,
    progress: Callable[[int], object] = int,
    excludes: Excludes = nothing,
) -> Iterator[bytes]:
    """A directory with all that is in it as a tar stream. done: is filled meanwhile; what cannot be read, and
    what is no file, directory or link, is skipped. excludes: is asked for each path in it. Raises
    SourceChanged for a large file that gets shorter meanwhile, OSError where the directory itself cannot be
    read."""
    waiting = [(directory, "")]
    while waiting:
        folder, above = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == directory:
                raise
            done.skip(above, error.strerror or str(error))
            continue
        for entry in entries:
            name = f"{above}/{entry.name}".lstrip("/")
            is_directory = entry.is_dir(follow_symlinks=False)
            if excludes(name, is_directory):
                continue
            if is_directory:
                waiting.append((entry.path, name))
            try:
                yield from _entry(entry.path, name, done, progress)
            except OSError as error:
                done.skip(name, error.strerror or str(error))
    yield _END


def _entry(path: str, name: str, done: Transferred, progress: Callable[[int], object]) -> Iterator[bytes]:
    """Raises OSError before the first piece only."""
    try:
        name.encode()
    except UnicodeEncodeError:
        done.skip(ascii(name), "its name is not UTF-8")
        return
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode):
        yield from _file(path, name, done, progress)
    elif stat.S_ISDIR(status.st_mode):
        yield _header(name, status, tarfile.DIRTYPE)
    elif stat.S_ISLNK(status.st_mode):
        yield _header(name, status, tarfile.SYMTYPE, link=os.readlink(path))
    else:
        done.skip(name, "neither a file, a directory nor a symbolic link")
        return
    done.files += 1


def _file(path: str, name: str, done: Transferred, progress: Callable[[int], object]) -> Iterator[bytes]:
    # Not waited for: a FIFO may have taken the file's place.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", 0) as file:
        status = os.fstat(file.fileno())
        if status.st_size <= _SMALL_BYTES:
            content = _up_to(cast("BinaryIO", file), _SMALL_BYTES)
            size, pieces = len(content), iter([content])
        else:
            size, pieces = status.st_size, _steady(cast("BinaryIO", file), status.st_size, name)
        yield _header(name, status, tarfile.REGTYPE, size)
        for piece in pieces:
            yield piece
            done.bytes += len(piece)
            progress(done.bytes)
        yield bytes(-size % _BLOCK_BYTES)


def _up_to(file: BinaryIO, most: int) -> bytes:
    content = bytearray()
    while len(content) < most and (piece := file.read(most - len(content))):
        content += piece
    return bytes(content)


def _steady(file: BinaryIO, size: int, name: str) -> Iterator[bytes]:
    """An archive says the size first: a file that has less by then ends the archive."""
    try:
        yield from exactly(read_up_to(file, size), size)
    except SourceChanged as error:
        raise SourceChanged(f"{name}: {error.message}") from None
    except OSError as error:
        raise SourceChanged(f"{name}: {error.strerror or error}") from error


def _header(name: str, status: os.stat_result, kind: bytes, size: int = 0, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    member.mode, member.mtime = stat.S_IMODE(status.st_mode), status.st_mtime
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
