"""A defect on purpose: with this folder on PYTHONPATH, one method raises for the process with the pid 1000.

MHNOS_TEST_FAULT names it: module, class and method, separated by spaces.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any


def _break(module: str, owner: str, name: str) -> None:
    found = getattr(importlib.import_module(f"mhnos_runtime.supervisor.{module}"), owner)
    whole: Callable[..., Any] = getattr(found, name)

    def broken(self: Any, *arguments: Any) -> Any:
        if getattr(self, "pid", getattr(self, "_pid", 0)) == 1000:
            raise ZeroDivisionError("on\npurpose")
        return whole(self, *arguments)

    setattr(found, name, broken)


if "MHNOS_TEST_FAULT" in os.environ:
    _break(*os.environ["MHNOS_TEST_FAULT"].split())
