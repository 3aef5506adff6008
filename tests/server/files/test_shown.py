"""A file as clients are shown it."""

from __future__ import annotations

from mhnos_runtime.files.entries import Entry
from mhnos_runtime.server.files.shown import file_info
from mhnos_runtime.wire import messages as m


def test_each_part_has_its_place() -> None:
    entry = Entry("/l", "link", 0, 0o777, 12, "0" * 24, "target", opaque=True)
    assert file_info(entry) == m.FileInfo("/l", "link", 0, 0o777, 12, "0" * 24, "target", opaque=True)
