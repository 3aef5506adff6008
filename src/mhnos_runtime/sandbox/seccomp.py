"""The system call filter: calls that no sandboxed program may make, as data, and libseccomp to compile it.

Knows calls and their arguments, not who is filtered. Compiled once, at the start of the runtime.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

# seccomp.h
_ALLOW = 0x7FFF0000
_ATTRIBUTE_BAD_ARCHITECTURE = 2
_GREATER = 6
_MASKED_EQUAL = 7
_LIBRARY = "libseccomp.so.2"
_U32 = 0xFFFFFFFF


def _errno_action(number: int) -> int:
    return 0x00050000 | number


#: Calls that fail with EPERM, by what they reach.
REFUSED = {
    "mounts": "mount umount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig "
    "fsmount fspick mount_setattr",
    "namespaces": "setns unshare",
    "other processes": "process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise process_mrelease",
    "kernel code": "init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open "
    "userfaultfd lookup_dcookie",
    "keyrings": "add_key request_key keyctl",
    "files by handle": "open_by_handle_at name_to_handle_at",
    "io_uring, which passes by this filter": "io_uring_setup io_uring_enter io_uring_register",
    "clocks": "clock_settime clock_settime64 settimeofday stime adjtimex clock_adjtime clock_adjtime64",
    "the machine": "reboot swapon swapoff acct syslog quotactl quotactl_fd sethostname setdomainname vhangup "
    "nfsservctl iopl ioperm modify_ldt fanotify_init uselib vm86 vm86old",
}
#: Calls that are newer than libraries in use. Since Linux 5.1 a call has one number on all architectures.
_NUMBERS = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "openat2": 437,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "process_mrelease": 448,
    "open_tree_attr": 467,
}
#: libseccomp's answer for a name that it does not know; other negative numbers mean another architecture.
_UNKNOWN = -1
#: linux/sched.h: namespaces of clone(2).
_CLONE_NEW = (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
#: ioctl_tty(2): typing into a terminal, and the console's selection, which can do the same.
_TIOCSTI = 0x5412
_TIOCLINUX = 0x541C
#: ioctl(2) of network interfaces and routes (linux/sockios.h), which describe the socket's network.
_SIOC = (0xFFFFFF00, 0x8900)
#: Calls with flags for sending, and the argument with the flags. tcp(7): this flag connects.
_SENDING = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}
_MSG_FASTOPEN = 0x20000000
#: ptrace(2): attaching to a running process. Tracing by a parent is still allowed.
_PTRACE_ATTACH = 16
_PTRACE_SEIZE = 0x4206
#: Socket families that are allowed. Others are kernel code that mostly exploits use, or bypass network
#: namespaces (to the hypervisor). Netlink describes network interfaces.
_LOCAL = (socket.AF_UNIX,)
_INTERNET = (*_LOCAL, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
#: Calls that change limits, priority, CPUs or memory of the process in their first argument; 0 is the caller.
_OF_A_PROCESS = (
    *("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"),
    *("migrate_pages", "move_pages"),
)
#: The same for a process, a group or a user. The first argument says which, and this number means a process
#: (getpriority(2), ioprio_set(2)); the second argument is its id.
_OF_MANY = {"setpriority": 0, "ioprio_set": 1}
#: prctl(2): sharing a CPU core with chosen processes only.
_PR_SCHED_CORE = 62


@dataclass(frozen=True, slots=True)
class Rule:
    """One call that fails. tests: (argument, mask, value), all of which must match. above: (argument,
    number), must match too: the argument, as an unsigned number of 64 bits, is larger."""

    call: str
    error: int
    tests: tuple[tuple[int, int, int], ...] = ()
    above: tuple[int, int] | None = None


def rules(
    *, network: bool, others: bool = True, connect: bool = True, old_landlock: bool = False
) -> Iterator[Rule]:
    """All rules. network: allow sockets of the internet. others: allow setting limits and priorities of other
    processes, see `_only_oneself`. connect: allow connecting sockets, see `_no_connect`. old_landlock: also
    refuse truncation of files that cannot be written, which Landlock before ABI 3 does not handle."""
    for names in REFUSED.values():
        for call in names.split():
            yield Rule(call, errno.EPERM)
    # Its flags are in memory, which filters cannot read; C libraries fall back to clone.
    yield Rule("clone3", errno.ENOSYS)
    flags = 1 if os.uname().machine == "s390x" else 0
    for flag in _CLONE_NEW:
        yield Rule("clone", errno.EPERM, ((flags, flag, flag),))
    for request in (_TIOCSTI, _TIOCLINUX):
        # The kernel uses 32 bits only.
        yield Rule("ioctl", errno.EPERM, ((1, _U32, request),))
    for request in (_PTRACE_ATTACH, _PTRACE_SEIZE):
        yield Rule("ptrace", errno.EPERM, ((0, _U32, request),))
    yield Rule("prctl", errno.EPERM, ((0, _U32, _PR_SCHED_CORE),))
    yield from _families(_INTERNET if network else _LOCAL)
    if not others:
        yield from _only_oneself()
    if not connect:
        yield from _no_connect()
    if old_landlock:
        yield Rule("truncate", errno.EPERM)
        yield Rule("openat2", errno.ENOSYS)
        mask = os.O_TRUNC | os.O_ACCMODE
        yield Rule("open", errno.EPERM, ((1, mask, os.O_TRUNC),))
        yield Rule("openat", errno.EPERM, ((2, mask, os.O_TRUNC),))


def _families(allowed: tuple[int, ...]) -> Iterator[Rule]:
    """Allow sockets of these families only."""
    # On some architectures one call does everything about sockets, with arguments in memory.
    yield Rule("socketcall", errno.ENOSYS)
    for call in ("socket", "socketpair"):
        yield Rule(call, errno.EAFNOSUPPORT, above=(0, max(allowed)))
        for family in set(range(max(allowed))).difference(allowed):
            yield Rule(call, errno.EAFNOSUPPORT, ((0, _U32, family),))


def _only_oneself() -> Iterator[Rule]:
    """For programs that can name other processes: no changes to those. The filter cannot know the caller's
    id, so only 0 means the caller."""
    for call in _OF_A_PROCESS:
        yield Rule(call, errno.EPERM, above=(0, 0))
    for call, process in _OF_MANY.items():
        for argument, number in ((0, process), (1, 0)):
            yield Rule(call, errno.EPERM, above=(argument, number))


def _no_connect() -> Iterator[Rule]:
    """For a program that holds a socket of a wider network than its own: it could disconnect a listening or
    accepted one (connect(2), AF_UNSPEC) and connect it to anywhere in that network."""
    yield Rule("connect", errno.EACCES)
    for call, argument in _SENDING.items():
        yield Rule(call, errno.EACCES, ((argument, _MSG_FASTOPEN, _MSG_FASTOPEN),))
    yield Rule("ioctl", errno.EACCES, ((1, *_SIOC),))


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of seccomp.h."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def load_library() -> ctypes.CDLL:
    """Raises OSError when libseccomp is not on this machine."""
    library = ctypes.CDLL(_LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def compile_filter(
    *, network: bool, others: bool = True, connect: bool = True, old_landlock: bool = False
) -> str:
    """The filter as a BPF program in base64, see `rules`. Raises OSError without libseccomp, or when it
    refuses a rule."""
    library = load_library()
    context = library.seccomp_init(_ALLOW)
    try:
        # Calls of another architecture, such as 32-bit ones, have other numbers.
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCHITECTURE, _errno_action(errno.ENOSYS)))
        for rule in rules(network=network, others=others, connect=connect, old_landlock=old_landlock):
            _add(library, context, rule)
        with open(os.memfd_create("filter", os.MFD_CLOEXEC), "w+b") as file:
            _check(library.seccomp_export_bpf(context, file.fileno()))
            file.seek(0)
            return base64.b64encode(file.read()).decode()
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: Rule) -> None:
    number = library.seccomp_syscall_resolve_name(rule.call.encode())
    if number == _UNKNOWN:
        number = _NUMBERS.get(rule.call, _UNKNOWN)
        if number == _UNKNOWN:
            raise OSError(errno.ENOSYS, f"libseccomp does not know the call {rule.call}")
    elif number < 0:
        return  # not a call of this architecture
    comparisons = [_Comparison(argument, _MASKED_EQUAL, mask, value) for argument, mask, value in rule.tests]
    if rule.above is not None:
        comparisons.append(_Comparison(rule.above[0], _GREATER, rule.above[1], 0))
    rows = (_Comparison * max(1, len(comparisons)))(*comparisons)
    action = _errno_action(rule.error)
    _check(library.seccomp_rule_add_array(context, action, number, len(comparisons), ctypes.byref(rows)))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, f"libseccomp: {os.strerror(-result)}")
