"""Takes tokens out of text before anyone keeps it. Knows the forms in which a client can show one."""

from __future__ import annotations

import re

MARK = "***"


def _spelled(word: str) -> str:
    """A pattern for a query's key in all its spellings: %74oken is token too."""
    return "".join(f"(?:{letter}|%{ord(letter):02x}|%{ord(letter.upper()):02x})" for letter in word)


# A value ends where the next query parameter, the fragment or the next word begins: rather more than less.
_QUERY = re.compile(rf"({_spelled('token')}(?:=|%3d))[^\s&#]+", re.IGNORECASE)
_SUBPROTOCOL = re.compile(r"(mhnos\.token\.)[^\s,&#]+", re.IGNORECASE)
# The length keeps prose such as "a bearer token" as it is.
_BEARER = re.compile(r"(\bbearer\s+)[^\s,\"']{16,}", re.IGNORECASE)


def redact(text: str) -> str:
    """A URL, path, header or log text without the token it may carry: /?token=*** ."""
    for pattern in (_QUERY, _SUBPROTOCOL, _BEARER):
        text = pattern.sub(rf"\g<1>{MARK}", text)
    return text
