"""Makes the server wait 5 s, not minutes, for OpenClaw to become ready. Put on PYTHONPATH by tests."""

from __future__ import annotations

import sys

if "mhnos_runtime.server" in sys.orig_argv:
    from mhnos_runtime.process import openclaw

    object.__setattr__(openclaw.OPENCLAW.ready, "timeout_seconds", 5.0)
