"""One text frame of a client to one request. Knows what 1.0 says to bad input; must not know what a request
does."""

from __future__ import annotations

import json
import math
import typing
from decimal import Decimal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.wire import surrogates
from mhnos_runtime.wire.messages import MAX_ID_BYTES, Request, RequestId, Write

_SHOWN_TYPE_CHARACTERS = 200  # of an unknown type in an error: enough to recognise it
# Of a `type` that is looked at as a value. A known one has 75 bytes at most, with every letter escaped; a
# longer list is shown by its beginning: half a million numbers take seconds to become a text.
_MAX_TYPE_BYTES = 4096


class WireError(MhnosError):
    """A frame that is no request. `request_id` is echoed in the answer; UNSET when it is not known."""

    code = "invalid-message"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str = "", request_id: RequestId = UNSET
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.request_id = request_id


class NotUtf8(WireError):
    """A text frame that is no UTF-8: RFC 6455, 8.1 has the connection closed with 1007."""


class _Envelope(msgspec.Struct):
    """What is looked at in a frame that did not parse."""

    type: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_envelopes = msgspec.json.Decoder(_Envelope)
_values = msgspec.json.Decoder(Raw)
_KNOWN_TYPES = {struct.__struct_config__.tag for struct in typing.get_args(Request)}
# What msgspec and json raise for what is not JSON. DecodeError and UnicodeError are ValueErrors; depth is
# bounded by the interpreter's recursion limit, which both check in C.
_NOT_JSON = (ValueError, RecursionError)


def parse_request(data: bytes | bytearray | str) -> Request:
    """The request in one text frame. Raises WireError, with the texts of 1.0 where it has one; NotUtf8."""
    if not isinstance(data, str):
        _check_utf_8(data)
    try:
        request = _requests.decode(data)
    except _NOT_JSON as error:
        request = _parse_slowly(_utf_8(data) if isinstance(data, str) else bytes(data), error)
    if request.id is not UNSET:
        _check_id(request.id)
    return request


def _check_utf_8(data: bytes | bytearray) -> None:
    """msgspec does not check what it skips, and only marks may be other than UTF-8."""
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError:
        raise NotUtf8("Invalid message format") from None


def _utf_8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise NotUtf8("Invalid message format") from None


def _parse_slowly(data: bytes, failed: Exception) -> Request:
    """For frames that failed: find out why, and accept lone surrogates, which msgspec does not. failed: what
    was wrong when they were taken as they are."""
    try:
        marked = surrogates.mark(data) if b"\\ud" in data or b"\\uD" in data else data
        document = surrogates.replace(marked) if marked != data else data
        envelope = _envelope(marked)
        if not _is_known(envelope.type):
            raise _unknown_type(envelope)
    except _NOT_JSON:
        raise WireError("Invalid message format") from None
    if document is data and isinstance(failed, msgspec.ValidationError):
        # To decode it once more would say the same, for as much time as the first attempt took.
        raise _wrong_field(failed, envelope) from None
    return _decode(document, envelope)


def _envelope(marked: bytes) -> _Envelope:
    """Raises ValueError for what is not JSON and for null; of the rest 1.0 reads the property `type`."""
    try:
        envelope = _envelopes.decode(marked)
    except msgspec.ValidationError:
        if bytes(_values.decode(marked)).strip() == b"null":
            raise
        return _Envelope()
    if envelope.id is not UNSET:
        envelope.id = Raw(surrogates.unmark(bytes(envelope.id)))
    return envelope


def _decode(document: bytes, envelope: _Envelope) -> Request:
    try:
        request = _requests.decode(document)
    except msgspec.ValidationError as error:
        raise _wrong_field(error, envelope) from None
    except _NOT_JSON:
        raise WireError("Invalid message format") from None
    request.id = envelope.id
    if isinstance(request, Write) and envelope.data is not UNSET:
        request.data = surrogates.text_of(surrogates.unmark(bytes(envelope.data)))
    return request


def _is_known(raw_type: Raw | UnsetType) -> bool:
    if raw_type is UNSET or len(memoryview(raw_type)) > _MAX_TYPE_BYTES:
        return False
    value = _loads(raw_type)
    return isinstance(value, str) and value in _KNOWN_TYPES


def _unknown_type(envelope: _Envelope) -> WireError:
    shown = "undefined" if envelope.type is UNSET else _shown_type(bytes(envelope.type))
    if len(shown) > _SHOWN_TYPE_CHARACTERS:
        shown = shown[:_SHOWN_TYPE_CHARACTERS] + "…"
    return WireError(
        f"Unknown message type: {surrogates.to_utf8(shown).decode()}",
        code="unknown-type",
        request_id=_echoable(envelope.id),
    )


def _shown_type(raw_type: bytes) -> str:
    """As JavaScript shows it; a list or an object of more than _MAX_TYPE_BYTES as its JSON."""
    if len(raw_type) > _MAX_TYPE_BYTES and raw_type[:1] in (b"[", b"{"):
        return surrogates.unmark(raw_type[: 4 * _SHOWN_TYPE_CHARACTERS]).decode(errors="ignore")
    return _javascript_string(_loads(Raw(raw_type)))


def _wrong_field(error: msgspec.ValidationError, envelope: _Envelope) -> WireError:
    """msgspec says "Expected `int`, got `str` - at `$.pid`": the path is the field."""
    problem, _, path = str(error).partition(" - at `$.")
    text = f"{path[:-1]}: {problem}" if path else problem
    return WireError(
        f"Invalid argument: {surrogates.to_utf8(text).decode()}",
        code="invalid-argument",
        request_id=_echoable(envelope.id),
    )


def _check_id(request_id: Raw) -> None:
    length_bytes = len(memoryview(request_id))
    if length_bytes > MAX_ID_BYTES:
        raise WireError(f"id: {length_bytes} bytes, {MAX_ID_BYTES} are allowed", code="too-large")


def _echoable(request_id: RequestId) -> RequestId:
    if request_id is not UNSET:
        _check_id(request_id)
    return request_id


def _loads(raw: Raw) -> object:
    """The standard library's decoder keeps lone surrogates. Numbers are floats, as in JavaScript."""
    return json.loads(surrogates.unmark(bytes(raw)), parse_int=float)


def _javascript_string(value: object) -> str:
    """What String(value) gives in JavaScript (ECMA-262, ToString), which 1.0 shows in its errors."""
    match value:
        case str():
            return value
        case None | bool():
            return json.dumps(value)
        case float():
            return _javascript_number(value)
        case list():
            return ",".join("" if item is None else _javascript_string(item) for item in value)
        case _:
            return "[object Object]"


def _javascript_number(value: float) -> str:
    """The shortest digits that mean the same number; an exponent only below 1e-6 and from 1e21 (ECMA-262)."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"
