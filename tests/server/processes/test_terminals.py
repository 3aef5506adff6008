"""A key for a terminal is told to the supervisor before it is written, so that floods wait for its answer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mhnos_runtime.server.processes.terminals import TYPED_SECONDS, Terminals

Write = Callable[[Any], None]


class Keyboard:
    """A terminal that notes what is done; time passes when it is told to."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.now = 1000.0
        self.done: list[str] = []
        loop: Any = SimpleNamespace(time=lambda: self.now)
        link: Any = SimpleNamespace(typed=lambda pid: self.done.append(f"told of {pid}"))
        self.terminals = Terminals(loop, link)
        queue = SimpleNamespace(write=lambda *_: self.done.append("written"))
        self.process: Any = SimpleNamespace(
            pid=1000, size=size, input=queue, typed_at=0.0, happen=lambda _event: None
        )
        self.client: Any = SimpleNamespace(accepted=0, new_part=lambda _offset, data: data)

    def write(self) -> None:
        self.terminals.write(self.process, b"x")

    def write_numbered(self) -> None:
        self.terminals.write_numbered(self.process, self.client, 0, memoryview(b"x"))


WAYS = pytest.mark.parametrize("way", [Keyboard.write, Keyboard.write_numbered])


@WAYS
def test_a_key_is_told_before_it_is_written(way: Write) -> None:
    """An answer that came before the notice ended no pause, which then lasted for as long as pauses may."""
    keyboard = Keyboard((80, 24))
    way(keyboard)
    assert keyboard.done == ["told of 1000", "written"]


@WAYS
def test_keys_that_follow_at_once_are_told_once(way: Write) -> None:
    keyboard = Keyboard((80, 24))
    for _ in range(3):
        way(keyboard)
    keyboard.now += TYPED_SECONDS
    way(keyboard)
    assert keyboard.done == ["told of 1000", *["written"] * 3, "told of 1000", "written"]


@WAYS
def test_data_for_a_pipe_is_no_key(way: Write) -> None:
    keyboard = Keyboard(None)
    way(keyboard)
    assert keyboard.done == ["written"]
