"""Attempts on what another process is given: limits, priorities, terminal, temporary files. Run by attack.py;
each function returns what it got hold of. None does harm: what is set is what is set already."""

import ctypes
import os
import resource
import struct

from attack_tools import F, call, libc, read

#: linux/ioprio.h: best effort, level 4, which is what a process has that asked for nothing.
_BEST_EFFORT = 2 << 13 | 4


def victim():
    """OS pid of another process of the same user; raises OSError where it cannot even be named."""
    os.getpgid(F["victim_pid"])
    return F["victim_pid"]


# Limits and priorities


def limit_another():
    resource.prlimit(victim(), resource.RLIMIT_CORE, (0, 0))
    return "set a limit"


def pin_another():
    os.sched_setaffinity(victim(), os.sched_getaffinity(victim()))
    return "chose its CPUs"


def reschedule_another():
    os.sched_setscheduler(victim(), os.SCHED_OTHER, os.sched_param(0))
    return "chose its scheduler"


def set_parameters_of_another():
    os.sched_setparam(victim(), os.sched_param(0))
    return "set them"


def set_attributes_of_another():
    call(314, victim(), struct.pack("IIQiIQQQ", 48, 0, 0, 0, 0, 0, 0, 0), 0)
    return "set them"


def renice_another():
    os.setpriority(os.PRIO_PROCESS, victim(), os.getpriority(os.PRIO_PROCESS, victim()))
    return "set its priority"


def renice_group_of_another():
    os.setpriority(os.PRIO_PGRP, os.getpgid(victim()), os.getpriority(os.PRIO_PROCESS, victim()))
    return "set the priority of its group"


def renice_user():
    priority = os.getpriority(os.PRIO_PROCESS, victim())
    os.setpriority(os.PRIO_USER, os.getuid(), priority)
    return "set the priority of all processes of this user"


def slow_disk_of_another():
    call(251, 1, victim(), _BEST_EFFORT)
    return "set its priority"


def slow_disk_of_group_of_another():
    call(251, 2, os.getpgid(victim()), _BEST_EFFORT)
    return "set the priority of its group"


def slow_disk_of_user():
    victim()
    call(251, 3, os.getuid(), _BEST_EFFORT)
    return "set the priority of all processes of this user"


def move_memory_of_another():
    nodes = struct.pack("Q", 1)
    return "moved, %d" % call(256, victim(), 2, nodes, nodes)


def move_pages_of_another():
    return "found them, %d" % call(279, victim(), 0, None, None, None, 0)


def share_core_with_another():
    for command in (1, 2):
        if libc.prctl(62, command, victim() if command == 2 else 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    return "shares it"


def write_process_files_of_another():
    for name in ("oom_score_adj", "oom_adj", "autogroup", "timerslack_ns", "coredump_filter", "clear_refs"):
        try:
            os.open("/proc/%d/%s" % (victim(), name), os.O_WRONLY)
        except OSError:
            continue
        return name
    return None


# Terminal


def open_terminal_of_another():
    """Whoever reads from it takes the keys from its owner."""
    os.open(F["victim_terminal"], os.O_RDWR | os.O_NOCTTY)
    return "opened " + F["victim_terminal"]


def list_terminals():
    return str([name for name in os.listdir("/dev/pts") if name.isdigit()] or "")


# Temporary files and shared memory


def read_temporary_file_of_another():
    return read(F["victim_temporary"]).decode()


def write_temporary_file_of_another():
    os.open(F["victim_temporary"], os.O_WRONLY)
    return "opened"


def list_temporary_files_of_another():
    path, name = os.path.split(F["victim_temporary"])
    while path != "/":
        try:
            if name in os.listdir(path):
                return name + " in " + path
        except OSError:
            pass
        path, name = os.path.split(path)
    return None


def read_shared_memory_of_another():
    return read(F["victim_shared"]).decode()


def list_shared_memory():
    name = os.path.basename(F["victim_shared"])
    return name if name in os.listdir("/dev/shm") else None


# The shared home


def plant_in_home():
    """A later shell, perhaps with a wider network, runs what stands there."""
    with open(os.path.join(os.environ["HOME"], ".bashrc"), "a") as file:
        file.write("# planted\n")
    return file.name
