"""How a child confines itself before it executes a program: user, namespaces, Landlock, seccomp.

Knows system calls; decides nothing, since the launch plan says it all. Runs in forked children only.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterable

from mhnos_runtime.launch import Confinement, Landlock

# linux/prctl.h, linux/capability.h, linux/seccomp.h
_PR_CAPBSET_DROP = 24
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
#: More than the kernel has; it refuses unknown ones.
_CAPABILITIES = 64

# The same on all architectures (landlock(7), close_range(2)).
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_SYS_CLOSE_RANGE = 436
_CLOSE_RANGE_CLOEXEC = 4

#: clone(2) by machine, as (number, place of the flags among its arguments).
_SYS_CLONE = {
    "x86_64": (56, 0),
    "aarch64": (220, 0),
    "riscv64": (220, 0),
    "loongarch64": (220, 0),
    "ppc64le": (120, 0),
    "s390x": (120, 1),
}
_CLONE_PARENT = 0x8000
# ioctl_ns(2), linux/sched.h, mount(2)
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NOEXEC, _MS_REMOUNT = 2, 8, 32
#: Terminals in one mount namespace, the program's own included: more than a person with tmux uses, and few of
#: the machine's 4096 (by default), which all namespaces share.
TERMINALS = 64
_SIGCHLD = 17

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
prctl = _libc.prctl
prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def become(user: tuple[int, int] | None) -> None:
    """Change to the user and its one group for good."""
    if user is None:
        return
    uid, gid = user
    if uid:
        _drop_bounding_set()  # while it is still allowed
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def enter(namespaces: Iterable[int]) -> None:
    """Join these namespaces in this order (setns(2)).

    After a mount namespace, and only until the next user namespace, the process has capabilities over the
    mounts in it: the terminals inside are limited then.
    """
    for fd in namespaces:
        _check(_libc.setns(fd, 0))
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNS:
            _limit_terminals()


def _limit_terminals() -> None:
    """See the kernel's documentation of devpts. bubblewrap's other options are repeated, or they would be
    lost."""
    flags = _MS_REMOUNT | _MS_NOSUID | _MS_NOEXEC
    options = f"ptmxmode=0666,mode=620,max={TERMINALS}".encode()
    _check(_libc.mount(None, b"/dev/pts", None, ctypes.c_ulong(flags), options))


def fork_as_sibling() -> int:
    """fork(2), but the child's parent is this process's parent, so that it learns the true wait status.

    The child is in the PID namespace that was joined; the number returned is the one outside.
    """
    number, place = _SYS_CLONE[os.uname().machine]
    arguments = [0, 0, 0, 0, 0]
    arguments[place] = _CLONE_PARENT | _SIGCHLD
    return _check(_syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments)))


def lock_up(confine: Confinement, temporary: str = "") -> None:
    """Give up capabilities, then everything that the launch plan takes away. execve gives nothing back.

    temporary: the folder for this process's temporary files, if one was made."""
    if confine.no_new_privs:
        _drop_capabilities()
        _check(prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if confine.landlock is not None:
        _restrict(confine.landlock, temporary)
    if confine.seccomp:
        _filter(base64.b64decode(confine.seccomp))


def close_others_at_exec() -> None:
    """Only the standard descriptors reach the program, even if another one was left open."""
    _syscall(
        ctypes.c_long(_SYS_CLOSE_RANGE),
        ctypes.c_ulong(3),
        ctypes.c_ulong(0xFFFFFFFF),
        ctypes.c_ulong(_CLOSE_RANGE_CLOEXEC),
    )


def _drop_bounding_set() -> None:
    """Capabilities that set-user-ID programs could regain. Without the right to, nothing changes."""
    for number in range(_CAPABILITIES):
        prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _drop_capabilities() -> None:
    """Drop all sets (capabilities(7))."""
    _drop_bounding_set()
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)))


def _restrict(landlock: Landlock, temporary: str) -> None:
    """Older kernels take a shorter structure: empty fields at its end are left out."""
    attributes = struct.pack("=QQQ", landlock.handled_fs, landlock.handled_net, landlock.scoped)
    size = 24 if landlock.scoped else 16 if landlock.handled_net else 8
    ruleset = _check(
        _syscall(
            ctypes.c_long(_SYS_LANDLOCK_CREATE_RULESET),
            ctypes.c_char_p(attributes),
            ctypes.c_ulong(size),
            ctypes.c_ulong(0),
        )
    )
    for path, access in landlock.rules:
        _allow(ruleset, path, access)
    for path, access in landlock.own_folders:
        _allow_own(ruleset, path, access)
    if temporary:
        _allow(ruleset, temporary, landlock.private_tmp)
    if landlock.own_terminal and os.isatty(0):
        _allow_beneath(ruleset, 0, landlock.own_terminal)
    _check(_syscall(ctypes.c_long(_SYS_LANDLOCK_RESTRICT_SELF), ctypes.c_ulong(ruleset), ctypes.c_ulong(0)))
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a path that is gone, or that this user cannot reach, needs no rule
    try:
        _allow_beneath(ruleset, fd, access)
    finally:
        os.close(fd)


def _allow_own(ruleset: int, path: str, access: int) -> None:
    """Anybody may have made this name: only a folder of this user's counts, and no link."""
    with contextlib.suppress(OSError):
        os.mkdir(path, 0o700)
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            _allow_beneath(ruleset, fd, access)
    finally:
        os.close(fd)


def _allow_beneath(ruleset: int, fd: int, access: int) -> None:
    """Allow access to what the descriptor refers to, and to everything beneath."""
    _check(
        _syscall(
            ctypes.c_long(_SYS_LANDLOCK_ADD_RULE),
            ctypes.c_ulong(ruleset),
            ctypes.c_ulong(_LANDLOCK_RULE_PATH_BENEATH),
            ctypes.c_char_p(struct.pack("=Qi", access, fd)),
            ctypes.c_ulong(0),
        )
    )


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter(code: bytes) -> None:
    program = _Program(len(code) // 8, code)
    _check(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0))
