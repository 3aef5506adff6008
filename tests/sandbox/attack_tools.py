"""What attempts to get out have in common. Runs inside a sandbox, on the system's Python of any age."""

import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)
F = {}


#: Numbers of the generic table (aarch64, riscv64) for those of x86-64, where they differ; -1: there is none.
ELSEWHERE = {
    56: 220,
    101: 117,
    103: 116,
    161: 51,
    165: 40,
    169: 142,
    170: 161,
    173: -1,
    175: 105,
    246: 104,
    248: 217,
    250: 219,
    251: 30,
    256: 238,
    279: 239,
    298: 241,
    304: 265,
    310: 270,
    314: 274,
    321: 280,
    323: 282,
}


def call(number, *arguments):
    """A system call by its number on x86-64; raises OSError."""
    if os.uname().machine != "x86_64":
        number = ELSEWHERE.get(number, number)
    if number < 0:
        raise OSError(errno.ENOSYS, "not on this machine")
    plain = [a if a is None or isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *plain)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def read(path, size=1 << 20):
    with open(path, "rb") as file:
        return file.read(size)


def processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
