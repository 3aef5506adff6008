"""What the description of the API says of the routes of uploads. Values only."""

from __future__ import annotations

from mhnos_runtime.server.api.tus_headers import MEDIA_TYPE
from mhnos_runtime.server.http.routes import About, Param, Reply, Shape

_VERSION = Param("header", "Tus-Resumable", "The version of tus: 1.0.0", r"^1\.0\.0$")
_LENGTH = Param("header", "Upload-Length", "Bytes of the whole file", "^[0-9]{1,16}$")
_OFFSET = Param("header", "Upload-Offset", "The first byte of the body in the file", "^[0-9]{1,16}$")
_CHECKSUM = Param(
    "header", "Upload-Checksum", "Of the body: sha1 or sha256, a space, and the digest in Base64"
)
_BODY: dict[str, Shape] = {MEDIA_TYPE: {}}
_TOLD = ("Tus-Resumable", "Upload-Offset", "Upload-Expires")
_GONE_ON = Reply("It has come so far; with `ETag` where the file is whole", headers=_TOLD)
_ENDED = Reply("It is no more", headers=("Tus-Resumable",))

OPTIONS = About(
    "What of tus 1.0 this server has",
    gives={204: Reply("See the headers", headers=("Tus-Version", "Tus-Extension", "Tus-Max-Size"))},
)
CREATE = About(
    "Begin an upload by tus 1.0",
    params=(
        _VERSION,
        _LENGTH,
        Param("header", "Upload-Defer-Length", "1: the length is told later", "^1$"),
        Param(
            "header",
            "Upload-Metadata",
            "path (required), mode, mtime, ifMatch, ifNoneMatch; values in Base64",
        ),
        _CHECKSUM,
    ),
    gives={201: Reply("`Location` is the upload", headers=("Location", *_TOLD))},
)
HEAD = About("How far an upload has come", params=(_VERSION,), gives={200: Reply("So far", headers=_TOLD)})
PATCH = About(
    "Go on with an upload",
    params=(_VERSION, _OFFSET, _LENGTH, _CHECKSUM),
    takes=_BODY,
    gives={204: _GONE_ON},
)
DELETE = About("Give an upload up", params=(_VERSION,), gives={204: _ENDED})
OVERRIDDEN = About(
    "What another method would do, for who can only send this one",
    params=(
        _VERSION,
        Param("header", "X-HTTP-Method-Override", "That method", "^(DELETE|HEAD|PATCH)$"),
        _OFFSET,
    ),
    takes=_BODY,
    gives={200: Reply("As of HEAD", headers=_TOLD), 204: Reply("As of PATCH or DELETE")},
)
