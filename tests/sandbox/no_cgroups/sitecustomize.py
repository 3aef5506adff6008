"""Makes the runtime believe that it can use no control group. Put on PYTHONPATH by tests."""

from __future__ import annotations

from mhnos_runtime.sandbox import cgroups

cgroups.find = lambda *_args, **_more: ([], "none, for a test")
