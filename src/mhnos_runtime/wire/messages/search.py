"""To find what was written: when each piece came, and which lines match a pattern.

Knows shapes and bounds; must not know how a server searches.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from mhnos_runtime import bounds
from mhnos_runtime.wire.messages.base import Handle, ListedHandle, Message, Offset, Part, Stream


class Timeline(Message, tag="timeline"):
    """When the kept output of a process was captured, `from_` an offset on."""

    pid: Handle
    from_: Offset = msgspec.field(name="from", default=0)


class TimelineAnswer(Message, tag="timelineAnswer"):
    """`times`: (offset, epoch ms) in order; what is from an offset up to the next one was captured then,
    within a second. `next`: where to ask again, if there is more."""

    pid: int
    times: list[tuple[int, int]]
    next: int | None = None


class Search(Message, tag="search"):
    """Find the lines of kept output, also of ended processes, that match a pattern in RE2's syntax.

    `fixed`: the pattern is a text. `processes`: only these. `max`: so many matches at most.
    """

    pattern: Annotated[str, Meta(min_length=1, max_length=bounds.PATTERN_CHARACTERS)]
    ignore_case: bool = False
    fixed: bool = False
    processes: Annotated[list[ListedHandle], Meta(max_length=bounds.SEARCHED_PROCESSES)] | None = None
    max: Annotated[int, Meta(ge=1, le=bounds.MATCHES)] = bounds.MATCHES_USUAL


class SearchMatch(Part):
    """A line. `offset`: of its first byte; `time`: epoch ms, within a second. `line`: as UTF-8, without its
    end; a long one is cut around what matched, with "…"."""

    pid: int
    stream: Stream
    offset: int
    time: int
    line: str


class SearchResult(Message, tag="searchResult"):
    """`matches`: by pid and offset. `truncated`: there may be more of them than these. `searched_bytes`: of
    output that were looked at."""

    matches: list[SearchMatch]
    searched_bytes: int
    truncated: bool = False
