"""Archives as hostile and honest programs write them: by the standard library, and by hand."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, Literal

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files.archives.entry import ArchiveEntry, End, Event
from mhnos_runtime.files.archives.unpack import Unpack, Unpacked
from mhnos_runtime.files.archives.untar import Untar
from mhnos_runtime.files.confine import Workspace

END = bytes(1024)


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def member(
    name: str,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    form: Literal[0, 1, 2] = tarfile.GNU_FORMAT,
    **fields: Any,
) -> bytes:
    """A member with everything that belongs to it, without an end of the archive."""
    made = info(name, kind, **{"size": len(content), **fields})
    head = made.tobuf(form, errors="surrogateescape")
    return head + content + bytes(-len(content) % 512)


def block(name: bytes, kind: bytes = b"0", size: bytes = b"0", **fields: bytes) -> bytes:
    """A header with these bytes in it, whatever they are, and the right checksum."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:107] = b"0000644"
    head[124 : 124 + len(size)] = size
    head[136:147] = b"00000000000"
    head[156:157] = kind
    target = fields.get("target", b"")
    head[157 : 157 + len(target)] = target
    magic = fields.get("magic", b"ustar\x0000")
    head[257 : 257 + len(magic)] = magic
    for at, value in fields.items():
        if at.startswith("at_"):
            head[int(at[3:]) : int(at[3:]) + len(value)] = value
    return sign(head)


def sign(head: bytearray) -> bytes:
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    return block(b"pax", kind, b"%o" % len(records)) + records + bytes(-len(records) % 512)


def record(key: str, value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    rest = len(key.encode()) + len(raw) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key.encode(), raw)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + END


def parsed(data: bytes, step: int = 1 << 20) -> list[tuple[ArchiveEntry, bytes]]:
    """What a parser says of an archive that comes in pieces of `step` bytes."""
    parser, found = Untar(), list[tuple[ArchiveEntry, bytes]]()
    for at in range(0, len(data), step):
        collect(parser.feed(data[at : at + step]), found)
    parser.finish()
    return found


def collect(events: Iterable[Event], found: list[tuple[ArchiveEntry, bytes]]) -> None:
    for event in events:
        if isinstance(event, ArchiveEntry):
            found.append((event, b""))
        elif not isinstance(event, End):
            entry, content = found[-1]
            found[-1] = (entry, content + bytes(event))


def unpack(workspace: Workspace, data: bytes, path: str = "/into", step: int = 1 << 16) -> Unpacked:
    """Raises what the parser and the unpacking raise."""
    with Unpack(workspace, path) as unpacking:
        parser = Untar()
        for at in range(0, len(data), step):
            for _ in unpacking.take(parser.feed(data[at : at + step])):
                pass
        parser.finish()
        for _ in unpacking.finish():
            pass
        return unpacking.result


def zipped(fill: Callable[[zipfile.ZipFile], object]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        fill(archive)
    return out.getvalue()


def why(result: Unpacked) -> dict[str, str]:
    return dict(result.failures)


def code(act: Callable[[], object]) -> str:
    """The code that it fails with, "" where it does not."""
    try:
        act()
    except MhnosError as error:
        return error.code
    return ""
