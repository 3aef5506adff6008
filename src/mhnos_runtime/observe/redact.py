"""Removes tokens from text before it is stored. Knows the forms in which a client can send one."""

from __future__ import annotations

import re

MARK = "***"


def _spelled(word: str) -> str:
    """A pattern for a key of a query in all its encodings: %74oken is token too."""
    return "".join(f"(?:{letter}|%{ord(letter):02x}|%{ord(letter.upper()):02x})" for letter in word)


# A value ends at the next query parameter, the fragment or the next word; rather too much is removed.
_QUERY = re.compile(rf"({_spelled('token')}(?:=|%3d))[^\s&#]+", re.IGNORECASE)
_SUBPROTOCOL = re.compile(r"(mhnos\.token\.)[^\s,&#]+", re.IGNORECASE)
# The minimum length spares prose such as "a bearer token".
_BEARER = re.compile(r"(\bbearer\s+)[^\s,\"']{16,}", re.IGNORECASE)


def redact(text: str) -> str:
    """A URL, path, header or log text without its token: /?token=*** ."""
    for pattern in (_QUERY, _SUBPROTOCOL, _BEARER):
        text = pattern.sub(rf"\g<1>{MARK}", text)
    return text
