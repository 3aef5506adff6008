"""The content of files in HTTP: routes, headers of requests, and what the headers of answers say. Pure; must
not know connections."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from mhnos_runtime.client.errors import ProtocolViolation, RequestFailed
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.http import Head

FILES = "/v1/files"
UPLOADS = "/v1/uploads"

_VERSION = re.compile(r"[0-9a-f]{24}")
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_NUMBER = re.compile(r"[0-9]{1,19}")
_MODE = re.compile(r"[0-7]{1,6}")


def names(path: str) -> str:
    """The canonical form of a path: absolute, without `.` and `..`, since a URL's path has none on its way
    through proxies. Raises RequestFailed (outside-workspace)."""
    kept: list[str] = []
    for name in path.split("/"):
        if name == "..":
            if not kept:
                raise RequestFailed(f"Leads outside the workspace: {path[:300]!r}", code="outside-workspace")
            kept.pop()
        elif name not in ("", "."):
            kept.append(name)
    return "/" + "/".join(kept)


def route(path: str, archive: str | None = None, exclude: Sequence[str] = ()) -> str:
    """Where the content of a file is, or a directory's as an archive: "tar" or "zip", without what such lines
    of a .gitignore file name. Raises RequestFailed for a path that none can be."""
    try:
        encoded = quote(names(path), safe="/")
    except UnicodeEncodeError:
        raise RequestFailed(f"Path is not valid UTF-8: {path[:300]!a}", code="invalid-argument") from None
    asked = [("archive", archive)] if archive else []
    query = urlencode(asked + [("exclude", line) for line in exclude], errors="surrogateescape")
    return FILES + encoded + (f"?{query}" if query else "")


def conditions(version: str | None, absent: bool = False) -> dict[str, str]:
    """For what stands there: it has this version, or nothing does. Raises ValueError for what is none."""
    if version is not None and absent:
        raise ValueError("what is absent has no version")
    if version is not None and not _VERSION.fullmatch(version):
        raise ValueError(f"{version[:80]!r} is no version of a file: 24 hexadecimal digits")
    return {"If-Match": f'"{version}"'} if version else {"If-None-Match": "*"} if absent else {}


def attributes(mode: int | None, mtime_ms: int | None) -> dict[str, str]:
    """What a file that is written is to have."""
    return {
        **({} if mode is None else {"Mhnos-Mode": f"{mode & 0o7777:04o}"}),
        **({} if mtime_ms is None else {"Mhnos-Mtime": str(mtime_ms)}),
    }


def upload_metadata(
    path: str, version: str | None, absent: bool, mode: int | None, mtime_ms: int | None
) -> str:
    """The header Upload-Metadata of tus 1.0: names with values in Base64."""
    conditions(version, absent)
    values = {
        "path": names(path),
        "mode": None if mode is None else f"{mode & 0o7777:04o}",
        "mtime": None if mtime_ms is None else str(mtime_ms),
        "ifMatch": version,
        "ifNoneMatch": "*" if absent else None,
    }
    return ",".join(f"{name} {_base64(value)}" for name, value in values.items() if value is not None)


def _base64(text: str) -> str:
    try:
        return base64.b64encode(text.encode()).decode()
    except UnicodeEncodeError:
        raise RequestFailed(f"Path is not valid UTF-8: {text[:300]!a}", code="invalid-argument") from None


def described(path: str, head: Head, size: int) -> m.FileInfo:
    """The file whose content an answer brings. Raises ProtocolViolation where it is not said which."""
    found = _VERSION.fullmatch((head.get("etag") or "").strip('"'))
    if found is None:
        raise ProtocolViolation("the answer does not say which version of the file it is")
    mode, mtime = head.get("mhnos-mode") or "", head.get("mhnos-mtime") or ""
    return m.FileInfo(
        path=names(path),
        kind="file",
        size=size,
        mode=int(mode, 8) if _MODE.fullmatch(mode) else 0o644,
        mtime=int(mtime) if _NUMBER.fullmatch(mtime.removeprefix("-")) else 0,
        version=found[0],
    )


def whole_size(head: Head, length: int | None, start: int) -> int:
    """Of the file of which the answer brings everything from `start` on. Raises ProtocolViolation where it
    brings something else."""
    if length is None:
        raise ProtocolViolation("the answer does not say how large the file is")
    if head.status != 206:
        if start:
            raise ProtocolViolation(f"the answer begins at byte 0, not at {start}")
        return length
    found = _RANGE.fullmatch(head.get("content-range") or "")
    first, last, size = map(int, found.groups()) if found else (-1, -1, -1)
    if first != start or last != size - 1 or length != size - start:
        raise ProtocolViolation(f"the answer is not what follows byte {start}: {head.get('content-range')!r}")
    return size


def offset(head: Head, most: int) -> int:
    """How much of an upload the server has. Raises ProtocolViolation."""
    text = head.get("upload-offset") or ""
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise ProtocolViolation(f"an upload's offset that can be none: {text[:80]!r}")
    return int(text)
