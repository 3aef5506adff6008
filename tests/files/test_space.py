"""What is to stay free of a disk stays free, and most writes cost no look at it."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.files.space import LOOK_BYTES, Space, free_bytes, require_space

_Disk = namedtuple("_Disk", "f_bavail f_frsize")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def test_what_is_coming_counts_with_what_is_to_stay_free(folder: int) -> None:
    require_space(folder, 0)
    require_space(folder, 1, 1)
    for min_free, coming in ((0, 1 << 60), (1 << 60, 0)):
        with pytest.raises(LimitReached) as caught:
            require_space(folder, min_free, coming)
        assert caught.value.code == "disk-full"
        assert ("min_free" in caught.value.hint) is bool(min_free)


def test_the_disk_is_looked_at_before_the_first_byte_and_then_now_and_again(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look(fd: int) -> _Disk:
        looks.append(fd)
        return _Disk(1 << 40, 1)

    monkeypatch.setattr(os, "fstatvfs", look)
    space, piece = Space(1), 1 << 20
    for _ in range(2 * LOOK_BYTES // piece):
        space.look(folder, piece)
    assert looks == [folder] * 2


def test_no_single_piece_passes_unseen(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much was allowed before, a piece that is larger than what is left until the next look."""
    space = Space(0)
    space.look(folder, 1)
    monkeypatch.setattr(os, "fstatvfs", lambda _: _Disk(LOOK_BYTES - 1, 1))
    with pytest.raises(LimitReached):
        space.look(folder, LOOK_BYTES)


def test_free_bytes_are_those_of_who_is_not_root(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda _: _Disk(10, 4096))
    assert free_bytes(folder) == 40960
