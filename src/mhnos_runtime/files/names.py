"""The next names of a directory in order, whatever its size. Knows names."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from mhnos_runtime.files.steps import Steps

STEP_NAMES = 500
"""Names that are looked at in one step: below a millisecond."""


def lowest(
    names: Iterable[bytes], beyond: bytes | None, limit: int, *, reverse: bool = False
) -> Steps[list[bytes]]:
    """The first `limit` names after `beyond`, in order of their bytes; reverse: the last ones before it. At
    most four times as many are in memory, and STEP_NAMES."""
    kept: list[bytes] = []
    edge, names = None, iter(names)
    while some := list(itertools.islice(names, STEP_NAMES)):
        if reverse:
            kept += [n for n in some if (beyond is None or n < beyond) and (edge is None or n > edge)]
        else:
            kept += [n for n in some if (beyond is None or n > beyond) and (edge is None or n < edge)]
        if len(kept) >= 4 * limit:
            kept.sort(reverse=reverse)
            del kept[limit:]
            edge = kept[-1]
        yield
    kept.sort(reverse=reverse)
    return kept[:limit]
