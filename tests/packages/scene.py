"""What container and service are put through alike: a process that counts, and one that ends in order.

Knows shell and Python programs; not where they run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: Seconds until something that an engine or systemd does by itself is seen.
SOON = 30.0
LINES = 1500
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.004; done"
COUNTED = "".join(f"line {number}\n" for number in range(LINES))
#: Writes `up`, then the signal that it is told to end with.
STOPPED = """import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("up", flush=True)
print("told", signal.sigwait([signal.SIGTERM]).value, flush=True)
"""


def eventually(what: Callable[[], Any], seconds: float = SOON) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return value
