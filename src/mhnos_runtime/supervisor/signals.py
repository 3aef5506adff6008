"""Signal handling as a program expects it at its start. Runs in forked children."""

from __future__ import annotations

import signal

#: Ignored signals stay ignored over exec; those with a handler do not (execve(2)). Python ignores SIGPIPE and
#: SIGXFSZ; the parent of the supervisor may have ignored more.
_IGNORED = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]


def reset_signals() -> None:
    # The wake-up descriptor is shared with the parent: nothing may be written to it here.
    signal.set_wakeup_fd(-1)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
