"""What one supervisor hands to the next comes back as it was; another version is refused."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mhnos_runtime.launch import Hello, Holder
from mhnos_runtime.supervisor import handover
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.handover import STATE_VERSION, HandOver
from mhnos_runtime.supervisor.holder import HolderKey, NamespacesState, NetworkState
from mhnos_runtime.supervisor.temporary import FoldersState
from tests.supervisor.test_state import ENDED, RUNNING

HELLO = Hello("s", 2, {"level": "none"}, "{}", {"digest": "x"}, "/bin", "", "there is none", (3, 4))
CONFIG = Config(["-m", "x"], 5, Path("/state"), 100, HELLO, False, [])
KEY = HolderKey(Holder("bwrap", ("--x",), (("/a", "b"),)), (1, 2))
STATE = HandOver(
    CONFIG,
    next_pid=1002,
    processes=[RUNNING, ENDED],
    ended=[999],
    networks=[NetworkState(KEY, NamespacesState(1, 2, 20, 21))],
    folders=FoldersState("/tmp/x", 30, 4, 0),
)


def test_everything_comes_back_as_it_was() -> None:
    assert HandOver.decode(handover.read(handover.write(STATE.encode()))) == STATE


def test_every_descriptor_stays_open() -> None:
    assert STATE.descriptors == {3, 4, 5, 10, 11, 12, 13, 14, 20, 21, 30}
    assert RUNNING.own_descriptors == {10, 11, 12}
    assert replace(STATE.folders, fd=-1).descriptors == ()


@pytest.mark.parametrize("version", [STATE_VERSION - 1, STATE_VERSION + 1, None])
def test_a_state_of_another_version_is_refused(version: int | None) -> None:
    with pytest.raises(ValueError, match=f"this one reads {STATE_VERSION}"):
        HandOver.decode({**STATE.encode(), "version": version})


def test_a_reload_that_fails_leaves_no_descriptor_to_those_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders of namespaces inherited those of all processes after it."""
    reader, writer = os.pipe()

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "execv", fail)
    state = SimpleNamespace(encode=dict, descriptors={reader, writer})
    with pytest.raises(FileNotFoundError):
        handover.replace(cast(handover.HandOver, state))
    assert not os.get_inheritable(reader)
    assert not os.get_inheritable(writer)
    os.close(reader)
    os.close(writer)
