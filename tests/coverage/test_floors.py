"""A module that falls below its floor is named, and so is one that has none."""

from __future__ import annotations

import pytest

from tests.coverage import floors

FLOORS = {"server/a.py": 90, "server/b.py": 100}


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"server/a.py": 90.0, "server/b.py": 100.0}, []),
        ({"server/a.py": 99.9, "server/b.py": 100.0}, []),
        ({"server/a.py": 89.96, "server/b.py": 100.0}, ["server/a.py fell from 90 % to 89.9 %"]),
        ({"server/a.py": 95.0, "server/b.py": 99.99}, ["server/b.py fell from 100 % to 99.9 %"]),
        (
            {"server/a.py": 90.0, "server/b.py": 100.0, "server/c.py": 77.7},
            ["server/c.py has no floor; it is new, and at 77 %"],
        ),
        ({"server/b.py": 100.0}, ["server/a.py has a floor and is not there"]),
    ],
)
def test_what_is_wrong_is_said_of_each_module(measured: dict[str, float], said: list[str]) -> None:
    complaints = list(floors.complaints(FLOORS, measured))
    assert [line.partition(":")[0] for line in complaints] == said


def test_floors_are_written_sorted() -> None:
    text = floors.written({"server/b.py": 99, "client/z.py": 100, "server/a.py": 0})
    assert text == "client/z.py 100\nserver/a.py 0\nserver/b.py 99\n"
    assert floors.read(text) == {"client/z.py": 100, "server/a.py": 0, "server/b.py": 99}


@pytest.mark.parametrize(("percent", "expected"), [(100.0, 100), (99.99, 98), (77.7, 76), (0.0, 0)])
def test_a_floor_leaves_room_for_a_race(percent: float, expected: int) -> None:
    assert floors.floor(percent) == expected


def test_a_floor_that_can_be_raised_is_told() -> None:
    assert floors.risen(FLOORS, {"server/a.py": 92.0, "server/b.py": 100.0, "server/c.py": 50.0}) == [
        "server/a.py"
    ]
    assert floors.risen(FLOORS, {"server/a.py": 91.9, "server/b.py": 100.0}) == []


def test_the_file_is_as_it_is_written() -> None:
    text = floors.FILE.read_text()
    known = floors.read(text)
    assert known
    assert text == floors.written(known)
