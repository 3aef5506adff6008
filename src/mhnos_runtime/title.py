"""What ps and top call the runtime's own processes. Knows /proc and its own memory, not their work."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

#: Roles. A sandbox's is the argv[0] of bubblewrap.
SUPERVISOR, SERVER, SANDBOX = "supervisor", "server", "sandbox"
WAITING, REMOVING = "waiting child", "removing files"
#: TASK_COMM_LEN without the NUL at its end: 15 bytes.
_COMM = b"mhnos-runtime"
_PR_SET_NAME = 15  # linux/prctl.h
#: arg_start and arg_end in /proc/PID/stat, counted after the name, which may contain anything (proc(5)).
_ARGUMENTS = slice(45, 47)


def title(role: str) -> str:
    return f"mhnos-runtime: {role}"


def take(role: str) -> None:
    """Have this process shown by its role, in the place of its command line. Where there is no room for that,
    or the kernel does not tell the place, the command line stays.

    Python has copied its arguments at its start, and does not look there again. It finds its environment by
    argv[0], so this cannot be done at exec.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        start, end = _arguments()
        text = title(role).encode()
        if start and end - start > len(text):  # a NUL stays at the end, or ps reads on (proc(5), cmdline)
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, text, len(text))
        ctypes.CDLL(None).prctl(_PR_SET_NAME, ctypes.c_char_p(_COMM), 0, 0, 0)


def has(os_pid: int, role: str) -> bool:
    """Whether this OS process is the runtime's supervisor or server: by its title, or by the module that it
    executes before it has one."""
    try:
        shown = Path(f"/proc/{os_pid}/cmdline").read_bytes()
    except OSError:
        return False
    return shown.startswith(title(role).encode()) or f"mhnos_runtime.{role}".encode() in shown.split(b"\0")


def _arguments() -> tuple[int, int]:
    stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    start, end = stat.rpartition(")")[2].split()[_ARGUMENTS]
    return int(start), int(end)
