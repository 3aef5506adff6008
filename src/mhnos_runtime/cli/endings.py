"""How a process ended, in words: one table for lists and for the line at the end of `run` and `attach`.

Knows reasons of the protocol; knows no terminal and no connection.
"""

from __future__ import annotations

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.exits import Ending

#: Signals that people send with keys, and one that a pipe's reader sends: shells say nothing of them either.
_USUAL_SIGNALS = ("SIGINT", "SIGQUIT", "SIGPIPE")


#: For lists: behind the exit code.
_SHORT = {
    "exit": "",
    "timeout": "timed out",
    "memory": "killed: memory",
    "killed": "killed",
    "idle": "ended: nobody attached",
    "stopped": "ended: runtime stopped",
    "lost": "lost: runtime was killed",
}
_LONG = {
    "timeout": "timed out",
    "memory": "killed: memory limit",
    "killed": "killed by another client",
    "idle": "ended: nobody was attached any more",
    "stopped": "ended: the runtime was stopped",
    "lost": "lost: the runtime was killed, and nobody saw how this process ended",
}


def status(ended: Ending) -> str:
    """For lists: "exited (0)", "exited (137, killed: memory)", with the exit code that `run` ends with."""
    why = short(ended)
    code = "" if ended.reason == "lost" else str(exits.for_exit(ended))
    return f"exited ({', '.join(filter(None, (code, why)))})"


def short(ended: Ending) -> str:
    """Why it ended, in two or three words; "" for an exit of its own."""
    return ended.signal or "" if ended.reason == "signal" else _SHORT.get(ended.reason, ended.reason)


def reason(ended: Ending, limit_bytes: int | None = None, timeout_ms: int | None = None) -> str:
    """Why it ended, where its exit code does not say it; "" for an end of its own, or by the keys of a
    terminal. limit_bytes, timeout_ms: what it was held to, where that is known."""
    if ended.reason == "signal":
        return f"killed by {ended.signal}" if ended.signal not in _USUAL_SIGNALS else ""
    said = _LONG.get(ended.reason, "")
    if ended.reason == "killed" and ended.signal is None:
        return said.replace("killed", "ended")  # it obeyed, with an exit code of its own
    if ended.reason == "memory" and limit_bytes:
        return f"{said} of {say.size(limit_bytes).replace('.0 ', ' ')}"
    if ended.reason == "timeout" and timeout_ms:
        return f"{said} after {say.span(timeout_ms)}"
    return said
