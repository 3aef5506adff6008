"""One text frame of a server to one message. Knows shapes; must not know what a client does with them.

Apart from requests (wire/parse.py), since what decodes these takes a command longer to load than it may take.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from mhnos_runtime.wire.messages import RequestId, ServerMessage


class Unknown(msgspec.Struct):
    """A text frame that a client does not understand: of a newer server, or wrong. `id`: whose answer it is,
    where that can be read; `reason`: what is not understood."""

    id: RequestId
    reason: str


class _Envelope(msgspec.Struct):
    """What is looked at in a frame that was not understood."""

    id: RequestId = UNSET


_messages: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_envelopes = msgspec.json.Decoder(_Envelope)
# What msgspec raises for what is not JSON, and for what is nested too deeply.
_NOT_UNDERSTOOD = (ValueError, RecursionError)


def parse_message(data: bytes | str) -> ServerMessage | Unknown:
    """The message in one text frame of a server; Unknown for what this side does not know. Raises nothing."""
    try:
        return _messages.decode(data)
    except _NOT_UNDERSTOOD as error:
        return Unknown(_id_in(data), str(error))


def _id_in(data: bytes | str) -> RequestId:
    try:
        return _envelopes.decode(data).id
    except _NOT_UNDERSTOOD:
        return UNSET
