"""Signal handling as a program expects it at its start. Runs in forked children."""

from __future__ import annotations

import contextlib
import signal


def reset_signals() -> None:
    # The wake-up descriptor is shared with the parent: nothing may be written to it from here.
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # The C library keeps two real-time signals for itself and refuses them.
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
