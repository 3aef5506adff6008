"""Versions and npm's version ranges, in the forms that the locks use. Pure."""

from __future__ import annotations

import re

Version = tuple[int, int, int]

_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_BOUND = re.compile(r"(>=|<=|>|<|=)?\s*(v?\d[\d.]*)")


def parse(text: str) -> Version | None:
    """(major, minor, patch) of a text that begins with a version, or None."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2] or 0), int(match[3] or 0)) if match else None


def allows(wanted: str, version: Version) -> bool:
    """Whether a range such as ">=24.16.0 <25 || >=26.1.0" contains a version. Raises ValueError for other
    forms."""
    return any(_within(part, version) for part in wanted.split("||"))


def _within(part: str, version: Version) -> bool:
    if _BOUND.sub("", part).strip():
        raise ValueError(f"not a range of bounds: {part.strip()!r}")
    return all(_meets(sign, text, version) for sign, text in _BOUND.findall(part))


def _meets(sign: str, text: str, version: Version) -> bool:
    bound = parse(text)
    assert bound is not None  # noqa: S101 - the pattern above begins with a digit
    return {
        ">=": version >= bound,
        "<=": version <= bound,
        ">": version > bound,
        "<": version < bound,
    }.get(sign, version == bound)
