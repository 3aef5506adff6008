"""A workspace with hostile neighbours. Every test here also fails when it leaves a descriptor open."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.files.confine import Workspace

CANARY = b"outside: nobody may read, change or join me"


def open_descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass  # The listing's own.
    return found


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = open_descriptors()
    yield
    if open_descriptors().keys() - before.keys():
        gc.collect()  # A test's own objects may only be waiting for it; that costs too much for every test.
    assert {fd: path for fd, path in open_descriptors().items() if fd not in before} == {}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A sibling whose name starts with the workspace's; checked to be untouched at the end."""
    folder = tmp_path / "ws-secret"
    folder.mkdir()
    (folder / "canary").write_bytes(CANARY)
    yield folder
    assert sorted(os.listdir(folder)) == ["canary"]
    assert (folder / "canary").read_bytes() == CANARY
    assert set(os.listdir(tmp_path)) <= {"ws", "ws-secret"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    return folder


@pytest.fixture
def workspace(root: Path, outside: Path) -> Iterator[Workspace]:
    with Workspace(root) as opened:
        yield opened
