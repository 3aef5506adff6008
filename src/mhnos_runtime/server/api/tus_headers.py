"""What requests say by the headers of tus 1.0 (https://tus.io/protocols/resumable-upload). Pure: texts in,
values out; knows no route."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping

from mhnos_runtime import bounds
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.draft import Condition
from mhnos_runtime.files.uploads import Checksum, Digest, Wanted
from mhnos_runtime.files.version import check_version
from mhnos_runtime.server.api.file_headers import mode_of, mtime_of

VERSION = "1.0.0"
MEDIA_TYPE = "application/offset+octet-stream"
#: Digests of Upload-Checksum. sha1 is the one that every server must have.
ALGORITHMS: Mapping[str, Callable[[], Digest]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}
#: Of Upload-Metadata. Whatever else a client tells of a file, such as its name there, is kept and given back.
_PATH, _MODE, _MTIME, _IF_MATCH, _IF_NONE_MATCH = "path", "mode", "mtime", "ifMatch", "ifNoneMatch"
MAX_METADATA_BYTES = 8190
_NUMBER = re.compile(r"[0-9]{1,16}")
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")


def number(headers: Mapping[str, str], name: str) -> int | None:
    """A count of bytes; None where there is no such header. Raises InvalidRequest."""
    text = headers.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > bounds.MAX_INTEGER:
        raise InvalidRequest(f"{name} is a whole number up to {bounds.MAX_INTEGER}")
    return int(text)


def required(headers: Mapping[str, str], name: str) -> int:
    """Raises InvalidRequest."""
    found = number(headers, name)
    if found is None:
        raise InvalidRequest(f"This needs the header {name}")
    return found


def wanted(headers: Mapping[str, str]) -> Wanted:
    """The upload that a creation asks for. Raises InvalidRequest."""
    if "Upload-Concat" in headers:
        raise InvalidRequest("Uploads are not put together here", hint="send each as one")
    length, deferred = number(headers, "Upload-Length"), headers.get("Upload-Defer-Length")
    if (length is None) != (deferred == "1"):
        raise InvalidRequest("This needs either Upload-Length, or Upload-Defer-Length: 1")
    text = headers.get("Upload-Metadata", "")
    found = metadata(text)
    if not found.get(_PATH):
        raise InvalidRequest(
            "Upload-Metadata does not say where the file is to be", hint="path, in Base64: path L2EudHh0"
        )
    return Wanted(
        path=found[_PATH],
        length=length,
        condition=condition(found.get(_IF_MATCH), found.get(_IF_NONE_MATCH)),
        mode=mode_of(found.get(_MODE)),
        mtime_ms=mtime_of(found.get(_MTIME)),
        metadata=text,
    )


def metadata(text: str) -> dict[str, str]:
    """Names and values: `name Base64` with commas between them; a name may stand alone. Values that are no
    UTF-8 appear with surrogates, which no path has. Raises InvalidRequest."""
    found: dict[str, str] = {}
    if len(text) > MAX_METADATA_BYTES:
        raise InvalidRequest(f"Upload-Metadata has more than {MAX_METADATA_BYTES} bytes")
    for pair in text.split(",") if text.strip() else ():
        name, _, value = pair.strip(" ").partition(" ")
        if not _KEY.fullmatch(name) or name in found:
            raise InvalidRequest("Upload-Metadata: each name once, then a space and its value in Base64")
        found[name] = _decoded("Upload-Metadata", value).decode(errors="surrogateescape")
    return found


def condition(if_match: str | None, if_none_match: str | None) -> Condition:
    """if_match: a version, with or without the quotes of an ETag, or "*". Raises InvalidRequest."""
    if if_none_match not in (None, "*"):
        raise InvalidRequest('ifNoneMatch can only be "*": nothing stands there')
    if if_match is None or if_match == "*":
        return Condition(exists=if_match is not None, absent=if_none_match is not None)
    versions = frozenset({check_version(if_match.strip('"'))})
    return Condition(versions, absent=if_none_match is not None)


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Of the body of this request. Raises InvalidRequest."""
    text = headers.get("Upload-Checksum")
    if text is None:
        return None
    name, _, value = text.partition(" ")
    if name not in ALGORITHMS:
        raise InvalidRequest(f"Upload-Checksum can be {' or '.join(ALGORITHMS)}")
    return Checksum(ALGORITHMS[name](), _decoded("Upload-Checksum", value))


def _decoded(header: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{header}: a value is not Base64") from None
