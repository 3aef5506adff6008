"""What a request wants to hold, and which part of a thing it is about: entity tags, dates and ranges of RFC
9110. Pure: texts of headers in, values out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

#: RFC 9110, 8.8.3: what stands between quotes; a weak tag has W/ before it.
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
_BETWEEN = re.compile(r"[ \t]*,[ \t,]*")
#: RFC 9110, 14.1.2, of one range. So many digits are more than any file has bytes.
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?:([0-9]{1,19})-([0-9]{1,19})?|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tags:
    """A list of entity tags. any: "*". One that is no such list has no tags: nothing matches it."""

    any: bool = False
    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()

    def same(self, tag: str) -> bool:
        """By the strong comparison: byte for byte the same."""
        return self.any or tag in self.strong

    def alike(self, tag: str) -> bool:
        """By the weak comparison."""
        return self.same(tag) or tag in self.weak


class Span(NamedTuple):
    """Bytes from `start` up to before `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class NoSuchRange(Exception):
    """What is asked for lies behind the end."""


def tags(headers: Mapping[str, str], name: str) -> Tags | None:
    """Of If-Match or If-None-Match; None where there is no such header."""
    text = headers.get(name)
    if text is None:
        return None
    if text.strip(" \t") == "*":
        return Tags(any=True)
    return _listed(text.strip(" \t,"))


def _listed(text: str) -> Tags:
    found: dict[bool, set[str]] = {False: set(), True: set()}
    at = 0
    while tag := _TAG.match(text, at):
        found[bool(tag[1])].add(tag[2])
        if tag.end() == len(text):
            return Tags(strong=frozenset(found[False]), weak=frozenset(found[True]))
        if not (between := _BETWEEN.match(text, tag.end())):
            break
        at = between.end()
    return Tags()


def span(headers: Mapping[str, str], size: int, tag: str) -> Span | None:
    """The range that is asked for, of `size` bytes with this entity tag; None for all of it, as for several
    ranges, one that is not understood, and one of another version (If-Range). Raises NoSuchRange."""
    asked = _RANGE.fullmatch(headers.get("Range", ""))
    if asked is None or not _in_range(headers.get("If-Range"), tag):
        return None
    first, last, suffix = asked.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), size if last is None else min(int(last) + 1, size)
        if last is not None and int(last) < start:
            return None
    if start >= size or start >= end:
        raise NoSuchRange
    return Span(start, end)


def _in_range(text: str | None, tag: str) -> bool:
    """RFC 9110, 13.1.5. A date is no strong validator here: a file may change twice in a second."""
    return text is None or text.strip(" \t") == f'"{tag}"'


def seconds(headers: Mapping[str, str], name: str) -> int | None:
    """The date of a header, seconds since the epoch; None where there is none, or none that is understood."""
    try:
        found = parsedate_to_datetime(headers.get(name, ""))
        return int(found.replace(tzinfo=found.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError, TypeError):
        return None


def date(at: int) -> str:
    """The date of HTTP for seconds since the epoch, as far as that has years of four digits."""
    at = min(max(at, -62135596800), 253402300799)
    return format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)
