"""Makes the server hold memory (what a spawn costs then), or the supervisor pause floods for another time."""

import importlib
import os
import sys

_BYTES = int(os.environ.get("BENCH_BALLAST_BYTES", "0"))
# orig_argv is the one thing that tells the server from the supervisor and from served processes this early.
if _BYTES and "mhnos_runtime.server" in " ".join(sys.orig_argv):
    ballast = bytearray(_BYTES)
    ballast[::4096] = b"\1" * len(range(0, _BYTES, 4096))  # touched, page by page

if "BENCH_PAUSE_SECONDS" in os.environ and "mhnos_runtime.supervisor" in " ".join(sys.orig_argv):
    floods = importlib.import_module("mhnos_runtime.supervisor.floods")
    floods.PAUSE_SECONDS = float(os.environ["BENCH_PAUSE_SECONDS"])
