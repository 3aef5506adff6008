"""Which engines processes can run: installations, folders that are closed, and when they are looked for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.engines import EngineStore
from mhnos_runtime.errors import StartFailed
from mhnos_runtime.server.processes import engine_access
from mhnos_runtime.server.processes.engine_access import LOOK_SECONDS, EngineAccess
from tests.engines.test_store import put
from tests.output.clock import Clock

#: A user who owns nothing here, and one who may enter each folder.
STRANGER = (54321, 54321)
OWNER = (os.geteuid(), os.getegid())
WORKERD = ("{engine:workerd}", "serve")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EngineStore]:
    """In a folder that everybody can enter, which pytest's own is not."""
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o755)
    yield EngineStore(folder)
    folder.chmod(0o755)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Folders that the user of processes cannot enter, by what lies behind them."""
    behind: dict[str, str] = {}
    monkeypatch.setattr(engine_access, "reachable", lambda path, _user: behind.get(str(path), ""))
    return behind


def test_templates_without_an_engine_need_none(store: EngineStore) -> None:
    assert EngineAccess(store.folder, None).programs(("python3", "{command}", "{port}")) == {}


def test_the_programs_that_templates_name(store: EngineStore) -> None:
    workerd, node = put(store, "workerd"), put(store, "node")
    programs = EngineAccess(store.folder, None).programs(("{engine:node}", *WORKERD, "{engine:node}"))
    assert programs == {"node": str(node / "bin/program"), "workerd": str(workerd / "bin/program")}


def test_one_that_is_missing_is_named_with_what_to_do(store: EngineStore) -> None:
    with pytest.raises(StartFailed, match="workerd is not installed") as refused:
        EngineAccess(store.folder, None).programs(WORKERD)
    assert (refused.value.code, refused.value.hint) == (
        "engine-missing",
        "mhnos-runtime engines install workerd",
    )


def test_one_behind_a_closed_folder_is_not_run(store: EngineStore) -> None:
    put(store)
    store.folder.chmod(0o700)
    with pytest.raises(StartFailed, match="cannot enter") as refused:
        EngineAccess(store.folder, STRANGER).programs(WORKERD)
    assert refused.value.code == "not-executable"
    assert EngineAccess(store.folder, None).programs(WORKERD)


def test_a_closed_folder_is_shown_to_no_process(store: EngineStore, closed: dict[str, str]) -> None:
    """A sandbox that is to show it cannot be made, and so no process could start at all."""
    workerd, node = put(store, "workerd"), put(store, "node")
    closed[str(node / "bin/program")] = str(node)
    assert EngineAccess(store.folder, STRANGER).folders() == (str(workerd),)
    assert EngineAccess(store.folder, None).folders() == (str(node), str(workerd))


def test_it_is_looked_again_after_a_while(store: EngineStore, clock: Clock) -> None:
    access = EngineAccess(store.folder, None)
    assert access.folders() == ()
    workerd = put(store)
    clock.let_pass(LOOK_SECONDS * 0.9)
    assert access.folders() == ()
    clock.let_pass(LOOK_SECONDS * 0.1)
    assert access.folders() == (str(workerd),)
    shutil.rmtree(workerd)
    assert access.folders() == (str(workerd),)
    clock.let_pass(LOOK_SECONDS)
    assert access.folders() == ()


def test_a_process_that_needs_one_is_shown_it_at_once(store: EngineStore, clock: Clock) -> None:
    """Also where it was installed a moment ago, since the last look."""
    access = EngineAccess(store.folder, None)
    assert (access.folders(), clock.now) == ((), 0)
    workerd = put(store)
    assert access.programs(WORKERD)
    assert access.folders() == (str(workerd),)


def test_one_that_is_removed_while_it_is_looked_at_stops_no_start(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    workerd = put(store)
    found = EngineStore.find(store, "workerd")
    shutil.rmtree(workerd)
    monkeypatch.setattr(EngineStore, "find", lambda _store, name: found if name == "workerd" else None)
    access = EngineAccess(store.folder, OWNER)
    assert access.folders() == ()
    with pytest.raises(StartFailed):
        access.programs(WORKERD)
