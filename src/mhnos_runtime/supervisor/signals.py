"""Signal handling as a program expects it at its start. Runs in forked children."""

from __future__ import annotations

import signal

#: What is ignored stays so over exec, what has a handler does not (execve(2)). Python ignores SIGPIPE and
#: SIGXFSZ;
#: whoever started the supervisor may have ignored more.
_IGNORED = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]


def reset_signals() -> None:
    # The wake-up descriptor is shared with the parent: nothing may be written to it from here.
    signal.set_wakeup_fd(-1)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
