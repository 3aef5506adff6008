"""The guard of the event loop itself: it must be awake, or every other test proves less than it seems to."""

from __future__ import annotations

import time
from pathlib import Path
from types import CodeType

import pytest
from blockbuster import BlockingError

import mhnos_runtime


def code_of_the_project(source: str) -> CodeType:
    return compile(source, str(Path(mhnos_runtime.__file__).with_name("no_such_file.py")), "exec")


async def test_a_blocking_call_of_the_project_on_the_event_loop_is_an_error() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        exec(code_of_the_project("time.sleep(0)"), {"time": time})


async def test_a_test_itself_may_block() -> None:
    assert Path(__file__).read_text(encoding="utf-8")


def test_the_same_call_without_an_event_loop_is_fine() -> None:
    scope: dict[str, object] = {"time": time}
    exec(code_of_the_project("done = time.sleep(0) is None"), scope)
    assert scope["done"] is True
