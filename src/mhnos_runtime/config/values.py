"""Types of settings: which values are allowed, how they are read from text or TOML, and how they are shown.

Knows no particular setting and no source of values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mhnos_runtime.config.address import HostPort, normal_host, parse_host, parse_origin

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
# One segment of a URL's path (RFC 3986, 3.3), encoded.
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+\Z")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Wrong(ValueError):
    """A value that is not allowed; the text, if any, says more than the type's `allowed`."""


@dataclass(frozen=True, slots=True)
class Where:
    """Folders that a relative path and a leading ~ start from."""

    folder: Path
    home: Path


@dataclass(frozen=True, slots=True)
class ValueType:
    """allowed: for messages and help, follows the word "expected". parse: takes text or a TOML or JSON value
    and returns the value; returns the same for what `plain` made of it. Raises Wrong. words: all values,
    where they are few."""

    allowed: str
    parse: Callable[[object, Where], object]
    metavar: str = "VALUE"
    many: bool = False
    switch: bool = False
    show: Callable[[Any], str] = str
    words: tuple[str, ...] = ()


def whole_number(low: int, high: int) -> ValueType:
    def parse(value: object, _: Where) -> int:
        number = _integer(value)
        if not low <= number <= high:
            raise Wrong
        return number

    return ValueType(f"a whole number from {low} to {high}", parse, "N")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        return int(value)
    raise Wrong


def seconds(low: float, high: float) -> ValueType:
    def parse(value: object, _: Where) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise Wrong
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise Wrong from None
        if not isfinite(number) or not low <= number <= high:
            raise Wrong
        return number

    return ValueType(f"seconds from {low:g} to {high:g}", parse, "SECONDS", show=lambda value: f"{value:g}")


def size(low: int, high: int) -> ValueType:
    """Bytes, written as a whole number or with the binary unit k, m, g or t: 512m, 1.5g."""

    def parse(value: object, _: Where) -> int:
        number = size_of(value) if isinstance(value, str) else _integer(value)
        if not low <= number <= high:
            raise Wrong
        return number

    allowed = f"a size from {show_size(low)} to {show_size(high)}, in bytes or with k, m, g or t"
    return ValueType(allowed, parse, "SIZE", show=show_size)


def size_of(text: str) -> int:
    match = _SIZE.match(text.strip())
    if match is None:
        raise Wrong
    number = Fraction(match[1]) * _UNITS[match[2].lower()]
    if not match[2] and number.denominator != 1:
        raise Wrong("a part of a byte")
    return int(number)


def show_size(value: int) -> str:
    """The shortest exact spelling: 1048576 is 1m, 1000 stays 1000."""
    for unit in ("t", "g", "m", "k"):
        if value and value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return str(value)


def one_of(*words: str, also: Mapping[str, str] | None = None) -> ValueType:
    """In upper or lower case. also: other words that people type, and what they mean."""
    meanings = {**{word: word for word in words}, **(also or {})}

    def parse(value: object, _: Where) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in meanings:
            raise Wrong
        return meanings[word]

    allowed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    return ValueType(allowed, parse, "|".join(words), words=words)


def text(allowed: str, metavar: str) -> ValueType:
    """One line that only its reader can check."""

    def parse(value: object, _: Where) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).isprintable():
            raise Wrong
        return str(value).strip()

    return ValueType(allowed, parse, metavar)


def switch() -> ValueType:
    def parse(value: object, _: Where) -> bool:
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else ""
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise Wrong

    return ValueType("true or false", parse, switch=True, show=lambda value: str(value).lower())


def path(*, optional: bool = False) -> ValueType:
    """An absolute path; the kernel resolves symlinks and .. later. None if optional and not set."""

    def parse(value: object, where: Where) -> Path | None:
        if value is None and optional:
            return None
        if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
            raise Wrong
        text = str(value)
        if text == "~" or text.startswith("~/"):
            return where.home / text[2:]
        return where.folder / text

    return ValueType("a path", parse, "PATH", show=lambda value: "" if value is None else str(value))


def host() -> ValueType:
    def parse(value: object, _: Where) -> str:
        name = normal_host(value.strip().strip("[]")) if isinstance(value, str) else None
        if name is None:
            raise Wrong
        return name

    return ValueType("an IP address or a host name", parse, "ADDRESS")


def base_path() -> ValueType:
    """A URL's path that begins and ends with a slash, without an empty or dot segment or an encoded slash."""

    def parse(value: object, _: Where) -> str:
        parts = value.strip().strip("/").split("/") if isinstance(value, str) else [""]
        if parts == [""] and isinstance(value, str):
            return "/"
        for part in parts:
            segment = unquote(part)
            if not _SEGMENT.match(part) or segment in (".", "..") or {"/", "\0"} & set(segment):
                raise Wrong
        return f"/{'/'.join(parts)}/"

    return ValueType("a path of a URL such as /user/ann/", parse, "PATH")


def many(item: Callable[[str], str], allowed: str, metavar: str) -> ValueType:
    """Several texts: a list, or one text separated by commas or spaces. Duplicates are dropped."""

    def parse(value: object, _: Where) -> tuple[str, ...]:
        parts = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
            raise Wrong
        return tuple(dict.fromkeys(item(part) for part in parts if part))

    def show(value: tuple[str, ...]) -> str:
        return ", ".join(value)

    return ValueType(allowed, parse, metavar, many=True, show=show)


def origin(text: str) -> str:
    if "*" in text:
        raise Wrong("a wildcard would let every web page in")
    normal = parse_origin(text.removesuffix("/"))
    if normal is None:
        raise Wrong(f"{text} is not an origin")
    return normal


def allowed_host(text: str) -> str:
    """A host, with a port to allow only that port. An IPv6 address needs no brackets."""
    bare = normal_host(text)
    entry = HostPort(bare, None) if bare is not None else parse_host(text)
    if entry is None:
        raise Wrong(f"{text} is not a host name or address")
    return str(entry)


def plain(value: object) -> object:
    """A value in a form that JSON can carry."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
