"""What one process runs in, and how that ends."""

from __future__ import annotations

import os
from typing import Any

from mhnos_runtime.launch import Limits
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.surroundings import Surroundings


def test_what_ended_namespaces_bring_about_is_the_processs_own() -> None:
    """An exception there was nobody's, and the process never ended."""
    raised: list[Exception] = []
    loop = Loop()

    class Inside:
        gone = False

        def on_gone(self) -> None: ...

    inside: Any = Inside()
    around = Surroundings(loop.owned(raised.append), Limits(), inside, None)
    assert not around.when_gone(lambda: os.close(-1))
    inside.on_gone()
    loop.after(0.01, loop.stop)
    loop.run()
    loop.close()
    assert [type(each) for each in raised] == [OSError]
