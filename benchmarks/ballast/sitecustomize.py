"""Makes the server process, and only it, hold memory: how a spawn's cost grows with the server's size."""

import os
import sys

_BYTES = int(os.environ.get("BENCH_BALLAST_BYTES", "0"))
# orig_argv is the one thing that tells the server from the supervisor and from served processes this early.
if _BYTES and "mhnos_runtime.server" in " ".join(sys.orig_argv):
    ballast = bytearray(_BYTES)
    ballast[::4096] = b"\1" * len(range(0, _BYTES, 4096))  # touched, page by page
