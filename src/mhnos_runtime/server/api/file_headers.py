"""Files as headers of HTTP tell of them, and what headers ask of a file. Pure: texts in, values out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.draft import Condition
from mhnos_runtime.files.entries import Entry
from mhnos_runtime.files.push_pull import MAX_MTIME_MS
from mhnos_runtime.server.http import conditions

#: Of every file: it is no page of this server's, whatever a browser makes of it, and an old copy is asked for
#: again.
_ALWAYS = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox",
}
_BYTES = "application/octet-stream"
_PLAIN = "text/plain; charset=utf-8"
_TEXTS = (
    "bash bat c cc cfg cjs conf cpp cs env go h hpp htm html ini java js jsonl jsx kt log lua mjs php pl py "
    "pyi r rb rs rst sh sql swift tex toml ts tsv tsx txt vue xml yaml yml zsh"
)
#: By the end of the name, the same on every machine. What a browser would run is plain text.
_TYPES = {
    **{name: f"image/{name}" for name in ("png", "jpeg", "gif", "webp", "avif", "bmp")},
    "jpg": "image/jpeg",
    **{name: f"text/{name}; charset=utf-8" for name in ("css", "csv")},
    "md": "text/markdown; charset=utf-8",
    "json": "application/json; charset=utf-8",
    **dict.fromkeys(_TEXTS.split(), _PLAIN),
}
_MODE = re.compile(r"0?[0-7]{1,3}")
_MILLISECONDS = re.compile(r"-?[0-9]{1,16}")


def head_of(entry: Entry) -> dict[str, str]:
    """The headers that describe a file."""
    return {
        **_ALWAYS,
        "Content-Type": type_of(entry.path),
        "ETag": f'"{entry.version}"',
        "Last-Modified": conditions.date(entry.mtime_ms // 1000),
        "Mhnos-Mode": f"{entry.mode:04o}",
        "Mhnos-Mtime": str(entry.mtime_ms),
    }


def status_of(entry: Entry, headers: Mapping[str, str]) -> int | None:
    """The status of a request to read whose conditions do not hold (RFC 9110, 13.2.2), None where they do."""
    match, none_match = conditions.tags(headers, "If-Match"), conditions.tags(headers, "If-None-Match")
    modified_s = entry.mtime_ms // 1000
    if match is not None:
        if not match.same(entry.version):
            return 412
    elif (since := conditions.seconds(headers, "If-Unmodified-Since")) is not None and modified_s > since:
        return 412
    if none_match is not None:
        return 304 if none_match.alike(entry.version) else None
    since = conditions.seconds(headers, "If-Modified-Since")
    return 304 if since is not None and modified_s <= since else None


def condition_of(headers: Mapping[str, str]) -> Condition:
    """What has to stand at a path that is written. Raises InvalidRequest for what would not be kept to: a
    date does not tell two changes in one second apart."""
    match, none_match = conditions.tags(headers, "If-Match"), conditions.tags(headers, "If-None-Match")
    if "If-Unmodified-Since" in headers or (none_match is not None and not none_match.any):
        hint = "If-Match with an ETag, or If-None-Match: *"
        raise InvalidRequest("No such condition for a file that is written", hint=hint)
    return Condition(
        versions=match.strong if match is not None and not match.any else None,
        exists=match is not None and match.any,
        absent=none_match is not None,
    )


def require_whole(headers: Mapping[str, str]) -> None:
    """Raises InvalidRequest for a part of a file (RFC 9110, 9.3.4): it would be taken for all of it."""
    if "Content-Range" in headers:
        hint = "send the whole file, or upload it in parts at /v1/uploads"
        raise InvalidRequest("A part of a file cannot be written", hint=hint)


def require_no_condition(headers: Mapping[str, str]) -> None:
    """Of what has no version: an archive that is unpacked. Raises InvalidRequest."""
    if any(name in headers for name in ("If-Match", "If-None-Match", "If-Unmodified-Since")):
        raise InvalidRequest("A directory has no version that could be a condition", hint="leave it out")


def mode_of(text: str | None) -> int | None:
    """Permission bits as `0644`. Raises InvalidRequest."""
    if text is None:
        return None
    if not _MODE.fullmatch(text):
        raise InvalidRequest("A mode has three octal digits, as 0644")
    return int(text, 8)


def mtime_of(text: str | None) -> int | None:
    """Epoch milliseconds. Raises InvalidRequest."""
    if text is None:
        return None
    if not _MILLISECONDS.fullmatch(text) or abs(int(text)) > MAX_MTIME_MS:
        raise InvalidRequest("A time of change is a number of milliseconds since 1970")
    return int(text)


def type_of(path: str) -> str:
    """Media type by the name: of what no browser takes for a program or a page."""
    stem, _, end = path[path.rfind("/") + 1 :].rpartition(".")
    return _TYPES.get(end.lower(), _BYTES) if stem else _BYTES
