"""Which kinds there are: built-in ones, and those that an operator declares, in the same form."""

from __future__ import annotations

from pathlib import Path

import pytest

import mhnos_runtime
from mhnos_runtime.config import KindSetting
from mhnos_runtime.config.kinds import BUILT_IN_KINDS, ReadySetting
from mhnos_runtime.process import kinds
from mhnos_runtime.process.kind import NO_HOOKS, Kind


def test_the_settings_know_the_names_of_the_built_in_ones() -> None:
    """By which they refuse a declaration that has one of them."""
    assert tuple(kinds.all_kinds([])) == BUILT_IN_KINDS


def test_declared_ones_are_data_alone() -> None:
    assert all(kind.hooks is not NO_HOOKS for kind in kinds.BUILT_IN)
    assert kinds.all_kinds([KindSetting("web", ("serve",))])["web"].hooks is NO_HOOKS


def test_a_declared_one_is_all_that_was_declared() -> None:
    ready = ReadySetting(port="web")
    setting = KindSetting(
        "web",
        ("serve", "{port:web}"),
        pty=True,
        env=(("A", "b"),),
        command="text",
        limits=(("tasks", 5),),
        ready=ready,
        grace_seconds=1.5,
        needed_memory_bytes=7,
        single=True,
    )
    declared = kinds.all_kinds([setting])
    assert list(declared) == [*BUILT_IN_KINDS, "web"]
    assert declared["web"] == Kind(
        "web",
        ("serve", "{port:web}"),
        pty=True,
        command="text",
        env=(("A", "b"),),
        limits=(("tasks", 5),),
        ready=ready,
        grace_ms=1500,
        needed_memory_bytes=7,
        single=True,
    )


def test_what_openclaw_makes_anew_is_not_pulled() -> None:
    assert {"/.openclaw/cache"} == kinds.CACHES


@pytest.mark.parametrize("room", ["output", "sandbox", "supervisor"])
def test_below_the_kinds_nothing_asks_for_one_by_its_name(room: str) -> None:
    text = "".join(path.read_text() for path in (Path(mhnos_runtime.__file__).parent / room).glob("*.py"))
    assert not [name for name in ("workerd", "openclaw") if name in text.lower()]


def test_a_folder_in_a_place_of_everybodys_is_said_for_an_engine_that_is_used() -> None:
    assert kinds.OWN_FOLDERS == (("openclaw", "/tmp/openclaw-state-locks-{uid}"),)
    for kind in kinds.BUILT_IN:
        assert all(f"{{engine:{engine}}}" in kind.argv for engine, _path in kind.own_folders)
