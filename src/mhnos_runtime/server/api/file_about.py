"""What the description of the API says of the routes of files. Values only."""

from __future__ import annotations

from typing import Any

from mhnos_runtime.server.http.routes import About, Param, Reply
from mhnos_runtime.wire import messages as m

_TAGS = "Entity tags, as `ETag` has them, or `*`"
_ARCHIVE = Param("query", "archive", "`tar` or `zip`: the directory with all that is in it", "^(tar|zip)$")
_MODE = Param("header", "Mhnos-Mode", "Permission bits, such as 0644", "^0?[0-7]{1,3}$")
_MTIME = Param("header", "Mhnos-Mtime", "Time of the last change, epoch milliseconds", "^-?[0-9]{1,15}$")
_TOLD = ("ETag", "Last-Modified", "Mhnos-Mode", "Mhnos-Mtime", "Accept-Ranges")
#: Of a file the type that its name says, of an archive application/x-tar or application/zip.
_ANY = "*/*"
_WRITTEN: dict[str, Any] = {
    "anyOf": [
        {"type": "object", "required": ["file"], "properties": {"file": m.FileInfo}},
        {"type": "object", "required": ["written", "bytes", "failed", "failures"]},
    ]
}

READ = About(
    "Read a file, a part of it, or a directory as an archive",
    params=(
        _ARCHIVE,
        Param("query", "exclude", "With `archive`: a line as of .gitignore, what it leaves out; repeatable"),
        Param("header", "Range", "One range of bytes, such as bytes=100-"),
        Param("header", "If-Range", "The entity tag that `Range` is meant for; another one: the whole file"),
        Param("header", "If-Match", _TAGS),
        Param("header", "If-None-Match", _TAGS),
        Param("header", "If-Modified-Since", "A date of HTTP"),
        Param("header", "If-Unmodified-Since", "A date of HTTP"),
    ),
    gives={
        200: Reply("The whole content; an archive has no entity tag", _ANY),
        206: Reply("The part", _ANY, headers=("Content-Range", *_TOLD)),
        304: Reply("It has this entity tag", headers=("ETag",)),
    },
)
WRITE = About(
    "Replace or make a file, with its directories; or unpack an archive into a directory",
    params=(
        _ARCHIVE,
        Param("header", "If-Match", _TAGS),
        Param("header", "If-None-Match", "`*`: only where nothing is there", r"^\*$"),
        _MODE,
        _MTIME,
    ),
    takes={"application/octet-stream": {}},
    gives={
        200: Reply("What it is now, or what was unpacked", "application/json", _WRITTEN),
        201: Reply("What was made", "application/json", _WRITTEN, headers=("ETag",)),
    },
)
