"""The table of routes, and which row a request means. Pure: knows paths and methods, no HTTP library.

A path is taken apart once and decoded once, segment by segment. One that another reader could take for
another path (an empty or dot segment, an encoded slash or NUL) means no row, so that no spelling goes around
a prefix.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from mhnos_runtime.server.auth.grants import Access, Need

#: First segments that belong to the API: protocol 1.0's WebSocket on any path is not for them.
RESERVED = ("v1",)

Handler = Callable[[Any], Awaitable[Any]]


#: Of JSON: a schema (JSON Schema 2020-12), or a msgspec type that has one.
Shape = Any


class Param(NamedTuple):
    """What a request may say beside its body. pattern: a regular expression for all of it."""

    place: Literal["header", "query", "path"]
    name: str
    says: str
    pattern: str = ""


class Reply(NamedTuple):
    """An answer. media: none for no body. headers: that it always has."""

    says: str
    media: str = ""
    shape: Shape = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """What the description of the API says of a route: one sentence; what may be sent, by media type; what is
    answered, by status. Every error has the same form, and is not named here."""

    says: str
    params: tuple[Param, ...] = ()
    takes: Mapping[str, Shape] = field(default_factory=dict)
    gives: Mapping[int, Reply] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One route. pattern: "/literal/{one}/{rest...}" below the base path: {one} stands for a segment that is
    not empty, {rest...}, which comes last, for all that follow, with the slash at their end if there is one.
    needs: what a grant must have. upgrade: a WebSocket is asked for, by whatever method: its handshake says
    more. writes: files are changed, so that it is not for a grant that only reads. about: None for a
    WebSocket, which has a description of its own."""

    method: str
    pattern: str
    needs: Need
    handler: Handler
    upgrade: bool = False
    writes: bool = False
    about: About | None = None

    def __post_init__(self) -> None:
        if self.upgrade and self.needs is Access.OPEN:
            raise ValueError(f"{self.pattern}: no WebSocket is open to strangers")


class Match(NamedTuple):
    """A row, and its parameters, decoded; bytes in them that are not UTF-8 appear as surrogates."""

    row: Row
    params: Mapping[str, str]


class NoRoute(NamedTuple):
    """Why there is no row: allow are the methods that the path has, none where there is no such path."""

    allow: tuple[str, ...] = ()


class Routes:
    """All rows, below one base path."""

    def __init__(self, rows: Iterable[Row], base_path: str = "/") -> None:
        self.rows = tuple(rows)
        self._base = [unquote(part) for part in base_path.split("/") if part]
        keys = {(row.method, row.pattern, row.upgrade) for row in self.rows}
        if len(keys) != len(self.rows):
            raise ValueError("a route stands in the table twice")

    def match(self, method: str, raw_path: str, upgrade: bool) -> Match | NoRoute:
        """raw_path: as it came, without query. HEAD means GET where it has no row of its own."""
        segments = self._below(split(raw_path))
        if segments is None:
            return NoRoute()
        fitting = [
            Match(row, params)
            for row in self.rows
            if row.upgrade == upgrade and (params := _fit(row.pattern, segments)) is not None
        ]
        if upgrade:
            plain = [each for each in fitting if segments[0] not in RESERVED or _is_reserved(each.row)]
            return plain[0] if plain else NoRoute()
        methods = [each.row.method for each in fitting]
        wanted = "GET" if method == "HEAD" and "HEAD" not in methods else method
        if wanted in methods:
            return fitting[methods.index(wanted)]
        return NoRoute(tuple(sorted({*methods, *(("HEAD",) if "GET" in methods else ())})))

    def _below(self, segments: list[str] | None) -> list[str] | None:
        """What is left of a path below the base path, None where it is not below."""
        count = len(self._base)
        if segments is None or segments[:count] != self._base:
            return None
        return segments[count:] or [""]


def split(raw_path: str) -> list[str] | None:
    """The decoded segments; the last is "" where the path ends in a slash. None where it is not plain."""
    if not raw_path.startswith("/"):
        return None
    segments = [unquote(part, errors="surrogateescape") for part in raw_path[1:].split("/")]
    odd = any(part in (".", "..") or "/" in part or "\0" in part for part in segments)
    return None if odd or "" in segments[:-1] else segments


def _is_reserved(row: Row) -> bool:
    return row.pattern[1:].split("/")[0] in RESERVED


def _fit(pattern: str, segments: Sequence[str]) -> dict[str, str] | None:
    """The parameters, or None where the pattern means other paths."""
    parts, params = pattern[1:].split("/"), {}
    for index, part in enumerate(parts):
        if index >= len(segments):
            return None
        if part.endswith("...}"):
            params[part[1:-4]] = "/".join(segments[index:])
            return params
        if part.startswith("{") and segments[index]:
            params[part[1:-1]] = segments[index]
        elif part != segments[index]:
            return None
    return params if len(parts) == len(segments) else None
