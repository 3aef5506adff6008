"""Attempts on files and on other processes. Run by attack.py; each function returns what it got hold of."""

import ctypes
import os
import pty
import stat
import struct

from attack_tools import F, call, libc, processes, read


def search_environments(secret):
    for pid in processes():
        if pid == os.getpid():
            continue
        try:
            if secret.encode() in read("/proc/%d/environ" % pid):
                return "the environment of %d" % pid
        except OSError:
            pass
    return None


def writable_memory(pid):
    """Whether the memory of a process can be written; writes back what was there."""
    with open("/proc/%d/maps" % pid) as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, mode = line.split()[:2]
        if mode.startswith("rw"):
            start = int(span.split("-")[0], 16)
            with open("/proc/%d/mem" % pid, "r+b", 0) as memory:
                memory.seek(start)
                old = memory.read(8)
                memory.seek(start)
                memory.write(old)
            return "wrote to the memory of %d" % pid
    return None


# Secrets and files of the server


def change_runtime():
    """By writing into its package, or putting another in its place."""
    for change in (
        lambda: open(F["package"] + "/__init__.py", "a"),
        lambda: open(F["package"] + "/planted.py", "w"),
        lambda: os.rename(F["package"], F["package"] + ".away"),
        lambda: os.chmod(F["package"] + "/__init__.py", 0o666),
    ):
        try:
            change()
        except OSError as error:
            refusal = error
        else:
            return F["package"]
    raise refusal


def read_token():
    return read(F["token"]).decode()


def list_state():
    return str(os.listdir(F["state"]))


def read_output_of_another():
    return str(read(os.path.join(F["state"], "processes", os.listdir(F["state"] + "/processes")[0])))


def read_environment_of_server():
    return search_environments(F["server_secret"])


def read_memory_of_server():
    return str(read("/proc/%d/mem" % F["server_pid"], 1)) if F["server_pid"] in processes() else None


def write_memory_of_supervisor():
    return writable_memory(F["supervisor_pid"])


def read_descriptors_of_supervisor():
    return str(os.listdir("/proc/%d/fd" % F["supervisor_pid"]))


def read_command_line_of_supervisor():
    text = read("/proc/%d/cmdline" % F["supervisor_pid"])
    return text.decode() if b"supervisor" in text else None


def read_environment_of_another():
    return search_environments(F["victim_secret"])


def write_memory_of_another():
    for pid in processes():
        try:
            if F["victim_mark"].encode() in read("/proc/%d/cmdline" % pid) and pid != os.getpid():
                return writable_memory(pid)
        except OSError:
            pass
    return None


def write_memory_of_first_process():
    return writable_memory(1)


def write_memory_of_all():
    """Anyone at all but ourselves, such as what holds the namespaces and is under no filter."""
    for pid in processes():
        if pid != os.getpid():
            try:
                found = writable_memory(pid)
            except OSError:
                continue
            if found:
                return found
    return None


def inherited_descriptors():
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue
        if int(name) > 2 and "/proc/" not in target:
            return name + " is " + target
    return None


# Files of the host


def read_shadow():
    return read("/etc/shadow").decode()


def list_home_of_root():
    return str(os.listdir("/root"))


def list_homes():
    return str(os.listdir("/home"))


def list_logs():
    return str(os.listdir("/var/log"))


def list_top():
    return "the host's top" if "boot" in os.listdir("/") else None


def read_outside():
    return read(F["outside"] + "/secret").decode()


def write_outside():
    with open(F["outside"] + "/made", "w") as file:
        file.write("x")
    return file.name


def write_through_symlink():
    os.symlink(F["outside"], "link-" + str(os.getpid()))
    with open("link-%d/made" % os.getpid(), "w") as file:
        file.write("x")
    return file.name


def read_through_hard_link():
    os.link(F["outside"] + "/secret", "hard-%d" % os.getpid())
    return read("hard-%d" % os.getpid()).decode()


def read_through_own_root():
    return read("/proc/self/root" + F["outside"] + "/secret").decode()


def read_through_other_roots():
    for pid in processes():
        try:
            return read("/proc/%d/root%s/secret" % (pid, F["outside"])).decode()
        except OSError:
            pass
    return None


def read_through_descriptors_of_others():
    for pid in processes():
        try:
            for name in os.listdir("/proc/%d/cwd/../.." % pid):
                if name == os.path.basename(os.path.dirname(F["outside"])):
                    return "the folder above the workspace by the working directory of %d" % pid
        except OSError:
            pass
    return None


def open_upwards():
    here = os.open(".", os.O_RDONLY)
    for _ in range(40):
        here = os.open("..", os.O_RDONLY | os.O_PATH, dir_fd=here)
    found = os.open(F["outside"].lstrip("/") + "/secret", os.O_RDONLY, dir_fd=here)
    return os.read(found, 100).decode()


def rename_outwards():
    with open("mine-%d" % os.getpid(), "w") as file:
        file.write("x")
    os.rename(file.name, F["outside"] + "/moved-%d" % os.getpid())
    return "moved a file out"


def truncate_outside():
    os.truncate(F["outside"] + "/other", 0)
    return "truncated"


def truncate_by_opening():
    os.open(F["outside"] + "/other", os.O_RDONLY | os.O_TRUNC)
    return "truncated"


def change_mode_outside():
    os.chmod(F["outside"] + "/owned", 0o600)
    return "changed its mode"


def look_outside():
    return str(os.stat(F["outside"] + "/secret").st_size)


def watch_outside():
    if libc.inotify_add_watch(libc.inotify_init1(0), F["outside"].encode(), 0x100) < 0:
        raise OSError(ctypes.get_errno(), "inotify_add_watch")
    return "hears of each file that is made"


def write_system():
    for folder in ("/usr", "/etc", "/bin", "/lib"):
        try:
            with open(folder + "/made-by-a-test", "w") as file:
                return file.name
        except OSError:
            pass
    return None


def write_top():
    with open("/made-by-a-test", "w") as file:
        return file.name


def replace_own_program():
    return str(os.open(os.readlink("/proc/self/exe"), os.O_WRONLY))


def replace_first_program():
    return str(os.open("/proc/1/exe", os.O_WRONLY))


def bind_mount():
    os.makedirs("mount", exist_ok=True)
    if libc.mount(F["outside"].encode(), b"mount", None, 4096, None):
        raise OSError(ctypes.get_errno(), "mount")
    return "mounted"


def remount_writable():
    if libc.mount(None, b"/usr", None, 32 | 4096, None):
        raise OSError(ctypes.get_errno(), "mount")
    return "mounted"


def unmount():
    if libc.umount2(b"/proc", 2):
        raise OSError(ctypes.get_errno(), "umount2")
    return "unmounted"


def mount_the_new_way():
    return "opened a file system, %d" % call(430, b"tmpfs", 0)


def copy_mount_tree():
    return "copied a mount, %d" % call(428, -100, b"/", 1)


def make_device():
    os.mknod("device-%d" % os.getpid(), stat.S_IFBLK | 0o600, os.makedev(*F["disk"]))
    return str(read("device-%d" % os.getpid(), 512)[:8])


def open_devices():
    for name in (
        "mem",
        "kmem",
        "port",
        "kmsg",
        "sda",
        "vda",
        "nvme0n1",
        "fuse",
        "kvm",
        "vsock",
        "loop-control",
    ):
        try:
            os.open("/dev/" + name, os.O_RDWR)
        except OSError:
            continue
        return name
    return None


def open_by_handle():
    handle = struct.pack("Ii", 128, 0) + bytes(128)
    buffer = ctypes.create_string_buffer(handle)
    identity = ctypes.c_int()
    if libc.name_to_handle_at(-100, b".", buffer, ctypes.byref(identity), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return "opened %d" % call(304, os.open(".", os.O_RDONLY), buffer, 0)


def write_kernel_settings():
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sysrq-trigger",
        "/proc/sys/vm/overcommit_memory",
        "/sys/kernel/uevent_helper",
        "/proc/sys/user/max_user_namespaces",
    ):
        try:
            os.open(path, os.O_WRONLY)
        except OSError:
            continue
        return path
    return None


def own_cgroup():
    """Join a control group above, or lift the limits of the own one."""
    for line in read("/proc/self/cgroup").decode().splitlines():
        names, own = line.split(":", 2)[1:]
        top = "/sys/fs/cgroup/%s" % names
        folder = os.path.normpath(top + own)
        for name in ("memory.max", "memory.limit_in_bytes", "pids.max"):
            if could_write(os.path.join(folder, name), "-1" if "limit" in name else "max"):
                return name
        while folder.startswith("/sys/fs/cgroup/"):
            folder = os.path.dirname(folder)
            if could_write(folder + "/cgroup.procs", "0"):
                return folder
    return None


def could_write(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        return False
    return True


# Other processes


def signal_server():
    os.kill(F["server_pid"], 0)
    return "could"


def signal_supervisor():
    os.kill(F["supervisor_pid"], 0)
    return "could"


def stop_parent():
    if os.getppid():
        os.kill(os.getppid(), 0)
        return "could signal %d" % os.getppid()
    return None


def signal_another():
    for pid in processes():
        try:
            if F["victim_mark"].encode() in read("/proc/%d/cmdline" % pid) and pid != os.getpid():
                os.kill(pid, 0)
                return "could signal %d" % pid
        except OSError:
            pass
    return None


def trace_supervisor():
    call(101, 16, F["supervisor_pid"], 0, 0)
    return "attached"


def seize_another():
    for pid in processes():
        if pid not in (os.getpid(), os.getppid()):
            try:
                call(101, 0x4206, pid, 0, 0)
            except OSError:
                continue
            return "seized %d" % pid
    return None


def read_memory_by_call():
    buffer = ctypes.create_string_buffer(16)
    vector = struct.pack("PN", ctypes.addressof(buffer), 16)
    return "read %d" % call(310, os.getpid(), vector, 1, vector, 1, 0)


def take_descriptor():
    return "took %d" % call(438, os.pidfd_open(os.getpid()), 0, 0)


def count_processes():
    number = len(processes())
    return "%d processes" % number if number > 10 else None


def join_namespace_of_first():
    with open("/proc/1/ns/mnt") as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
    return "joined"


def system_v_memory():
    if libc.shmget(F["shm_key"], 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    return "found the memory of another"


def type_into_terminal():
    pid, master = pty.fork()
    if pid == 0:
        import fcntl

        try:
            fcntl.ioctl(0, 0x5412, b"x")
            os.write(1, b"typed")
        except OSError as error:
            os.write(1, b"refused %d" % error.errno)
        os._exit(0)
    text = os.read(master, 100)
    os.waitpid(pid, 0)
    return "typed" if b"typed" in text else None


def paste_into_console():
    import fcntl

    fcntl.ioctl(0, 0x541C, b"\x03")
    return "could"
