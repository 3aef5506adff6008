"""Messages to the bytes of text frames. Knows which answers 1.0 needs twice; must not know connections."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from mhnos_runtime.wire import surrogates
from mhnos_runtime.wire.messages import Detached, FsyncResult, Part, Pong, Stderr, Stdout, Stream

# Clients of 1.0 have no handler for these: the same answer follows once more with the type "status".
ANSWERED_TWICE = (Pong, FsyncResult, Detached)

_encoder = msgspec.json.Encoder()


def encode(message: Part) -> bytes:
    """A message, or a part of one, as UTF-8 JSON, with U+FFFD for what is no Unicode (in file names, for
    example)."""
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        return _encoder.encode(_clean(message))


def as_status(encoded: bytes) -> bytes:
    """An encoded message once more, with the type "status"."""
    end = encoded.index(b'"', len(b'{"type":"'))
    return b'{"type":"status' + encoded[end:]


def output_text(
    stream: Stream, pid: int, data: str, offset: int, next_offset: int, timestamp_ms: int | None = None
) -> bytes:
    """The text frame for one piece of output; `timestamp_ms` (epoch) marks a replayed one."""
    shape = Stderr if stream == "stderr" else Stdout
    return _encoder.encode(
        shape(pid, data, offset, next_offset, UNSET if timestamp_ms is None else timestamp_ms)
    )


def _clean(value: object) -> object:
    if isinstance(value, str):
        return surrogates.to_utf8(value).decode()
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        fields = {name: _clean(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**fields)
    return value
