"""What the store takes for an engine, and above all what it does not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.engines import EngineStore
from mhnos_runtime.engines.store import MARKER


def put(
    store: EngineStore, name: str = "workerd", *, at: float = 1.0, folder: str = "", **other: Any
) -> Path:
    """An installation as it should be, but for what is said otherwise."""
    where = store.folder / name / (folder or store.pinned_folder(name).name)
    (where / "bin").mkdir(parents=True)
    (where / "bin" / "program").write_bytes(b"12345")
    marker = {
        "name": name,
        "version": "1.0",
        "machine": store.machine,
        "program": "bin/program",
        "programBytes": 5,
        "sizeBytes": 4096,
        "installedAt": at,
    }
    (where / MARKER).write_text(json.dumps({**marker, **other}))
    return where


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o755)
    return EngineStore(folder)


def test_nothing_is_there(store: EngineStore, tmp_path: Path) -> None:
    assert store.find("workerd") is None
    assert EngineStore(tmp_path / "none").find("workerd") is None
    assert EngineStore(tmp_path / "none").versions("workerd") == []


def test_the_pinned_version_is_found(store: EngineStore) -> None:
    folder = put(store)
    engine = store.find("workerd")
    assert engine is not None
    assert (engine.name, engine.version, engine.folder) == ("workerd", "1.0", folder)
    assert engine.program == folder / "bin" / "program"
    assert store.is_current(engine)
    assert store.find("node") is None


def test_the_pinned_one_is_preferred_to_a_later_other_one(store: EngineStore) -> None:
    put(store, at=5, folder="other")
    pinned = put(store, at=1)
    engine = store.find("workerd")
    assert engine is not None
    assert engine.folder == pinned


def test_an_older_version_is_used_until_it_is_updated(store: EngineStore) -> None:
    put(store, at=1, folder="older")
    last = put(store, at=2, folder="old")
    engine = store.find("workerd")
    assert engine is not None
    assert engine.folder == last
    assert not store.is_current(engine)


def test_without_its_marker_it_is_not_there(store: EngineStore) -> None:
    (put(store) / MARKER).unlink()
    assert store.find("workerd") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"name": "workerd"}', "\x00", '"x"'])
def test_a_marker_that_is_half_written(store: EngineStore, text: str) -> None:
    (put(store) / MARKER).write_text(text)
    assert store.find("workerd") is None


@pytest.mark.parametrize("content", [b"", b"1234", b"123456"])
def test_a_program_that_is_not_whole(store: EngineStore, content: bytes) -> None:
    (put(store) / "bin" / "program").write_bytes(content)
    assert store.find("workerd") is None


def test_a_program_that_is_gone(store: EngineStore) -> None:
    (put(store) / "bin" / "program").unlink()
    assert store.find("workerd") is None


def test_what_was_installed_for_another_machine(store: EngineStore) -> None:
    put(store, machine="s390x")
    assert store.find("workerd") is None


def test_an_engine_under_another_ones_name(store: EngineStore) -> None:
    put(store, "node", folder=store.pinned_folder("workerd").name)
    (store.folder / "node").rename(store.folder / "workerd")
    assert store.find("workerd") is None


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_folder_that_others_can_write_is_not_trusted(store: EngineStore, mode: int) -> None:
    put(store)
    store.folder.chmod(mode)
    assert store.find("workerd") is None
    assert "can be written by other users" in store.distrusted()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_not_trusted(store: EngineStore) -> None:
    put(store)
    os.chown(store.folder, 65534, 65534)
    assert store.find("workerd") is None
