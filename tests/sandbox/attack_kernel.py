"""Attempts on privileges, the network and resources. Run by attack.py; each function returns what it got."""

import ctypes
import os
import resource
import signal
import socket
import struct
import subprocess
import time

from attack_tools import F, call, libc, read


def gain_capabilities():
    header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("IIIIII", *[0xFFFFFFFF] * 6)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")
    return "got them"


def become_root():
    os.setuid(0)
    return str(os.geteuid())


def change_group():
    os.setgroups([0])
    return str(os.getgroups())


def run_set_user_id_program():
    """While `su` waits for a password, it shows as whom it runs."""
    su = next(path for path in ("/usr/bin/su", "/bin/su") if os.path.exists(path))
    child = subprocess.Popen(
        [su, "root", "-c", "true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(200):
            status = read("/proc/%d/status" % child.pid).decode()
            name, uids = status.split("\n")[0], status.split("Uid:")[1].split("\n")[0].split()
            if name.endswith("su") and uids[1] == "0":
                return "runs as 0"
            if child.poll() is not None:
                return None
            time.sleep(0.005)
    finally:
        child.kill()
        child.wait()
    return None


def nested_user_namespace():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")
    return "made one"


def nested_user_namespace_by_clone():
    pid = call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made one"


def nested_user_namespace_by_clone3():
    pid = call(435, struct.pack("QQQQQQQQ", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made one"


def nested_mount_namespace():
    if libc.unshare(0x00020000):
        raise OSError(ctypes.get_errno(), "unshare")
    return "made one"


def nested_sandbox():
    done = subprocess.run(["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"], capture_output=True)
    return "made one" if done.returncode == 0 else None


def take_tree():
    """open_tree_attr(2), which libraries of filters do not know yet."""
    return "took %d" % call(467, -100, b".", 0, None, 0)


def change_root():
    os.chroot(".")
    return "changed"


def key_to_keyring():
    return "added %d" % call(248, b"user", b"a-key", b"x", 1, -3)


def search_keyring():
    return "found %d" % call(250, 0, -4, 1, 0, 0)


def load_bpf():
    return "made a map, %d" % call(321, 0, struct.pack("IIII", 2, 4, 4, 1) + bytes(112), 128)


def ring_without_filter():
    return "made one, %d" % call(425, 4, ctypes.create_string_buffer(256))


def measure_kernel():
    attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0) + bytes(96))
    return "measures, %d" % call(298, attributes, 0, -1, -1, 0)


def handle_page_faults():
    return "does, %d" % call(323, 1)


def load_module():
    return "loaded %d" % call(175, b"", 0, b"")


def load_kernel():
    return "loaded %d" % call(246, 0, 0, None, 0)


def reboot():
    return "did %d" % call(169, 0xFEE1DEAD, 672274793, 0, None)


def name_host():
    return "did %d" % call(170, b"owned", 5)


def set_clock():
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return "set"


def read_kernel_log():
    return "read %d" % call(103, 3, ctypes.create_string_buffer(100), 100)


def port_access():
    return "got %d" % call(173, 0x60, 1, 1)


def machine_code(code):
    import mmap

    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


def calls_of_another_architecture():
    """32-bit getpid, whose number is another one in 64 bits: mov eax, 20; int 0x80; ret."""
    if os.uname().machine != "x86_64":
        return None
    result = machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    return "the filter was passed by" if result == os.getpid() else None


def calls_of_x32():
    if os.uname().machine != "x86_64":
        return None
    return "got %d" % call(0x40000000 + 39)


def undo_filter():
    """A second filter that allows all must not undo the first."""
    instructions = struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)
    program = struct.pack("HP", 1, ctypes.addressof(ctypes.create_string_buffer(instructions)))
    libc.prctl(38, 1, 0, 0, 0)
    libc.prctl(22, 2, program, 0, 0)
    return "added %d" % call(248, b"user", b"a-key", b"x", 1, -3)


def undo_no_new_privileges():
    libc.prctl(38, 0, 0, 0, 0)
    return "undone" if libc.prctl(39, 0, 0, 0, 0) == 0 else None


# Network


def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as sock:
        sock.settimeout(3)
        sock.connect(address)
        return sock


def reach_server():
    connect(socket.AF_INET, ("127.0.0.1", F["port"]))
    return "connected"


def use_server_without_token():
    with socket.create_connection(("127.0.0.1", F["port"]), 5) as sock:
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = sock.recv(100).split(b"\r\n")[0].decode()
    return answer if " 101 " in answer else None


def listen_beside_server():
    """On an address of loopback, where a client of localhost would show its token."""
    for family, address in ((socket.AF_INET6, "::1"), (socket.AF_INET6, "::"), (socket.AF_INET, "127.0.0.1")):
        for only in (0, 1):
            sock = socket.socket(family)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            try:
                sock.bind((address, F["port"]))
                sock.listen()
            except OSError as error:
                refusal = error
            else:
                return "listens on %s" % address
    raise refusal


def reach_host_service():
    connect(socket.AF_INET, ("127.0.0.1", F["service_port"]))
    return "connected"


def reach_host_service_by_ipv6():
    connect(socket.AF_INET6, ("::1", F["service_port6"]))
    return "connected"


def reach_host_service_by_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect(("127.0.0.1", F["udp_port"]))
        sock.send(b"ask")
        return sock.recv(10).decode()


def reach_outside_address():
    """The route counts, not the answer: this address belongs to nobody (RFC 5737)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 53))
        return "has a route by " + sock.getsockname()[0]


def reach_metadata():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("169.254.169.254", 80))
        return "has a route by " + sock.getsockname()[0]


def reach_abstract_socket():
    connect(socket.AF_UNIX, "\0" + F["abstract"])
    return "connected"


def reach_path_socket():
    connect(socket.AF_UNIX, F["outside"] + "/socket")
    return "connected"


def raw_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)
    return "could"


def socket_of_another_family():
    """Any but Unix, IPv4, IPv6 and the kernel's own (netlink): each is code of the kernel to attack."""
    for family in set(range(64)) - {1, 2, 10, 16}:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
            try:
                socket.socket(family, kind)
            except OSError:
                continue
            return "family %d" % family
    return None


def socket_of_the_internet():
    for family in (2, 10, 16):
        try:
            socket.socket(family, socket.SOCK_DGRAM)
        except OSError:
            continue
        return "family %d" % family
    return None


def hypervisor_socket():
    socket.socket(40, socket.SOCK_STREAM)
    return "could"


def kernel_crypto_socket():
    socket.socket(38, socket.SOCK_SEQPACKET)
    return "could"


# Resources


def raise_core_limit():
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    return "raised"


def raise_open_files():
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    return "raised"


def exhaust_descriptors():
    kept = []
    for _ in range(5000):
        kept.append(os.open("/dev/null", os.O_RDONLY))
    return "opened %d" % len(kept)


def exhaust_tasks():
    """More children at once than the limit allows."""
    children = []
    try:
        for _ in range(F["tasks"] + 20):
            pid = os.fork()
            if pid == 0:
                time.sleep(30)
                os._exit(0)
            children.append(pid)
        return "%d children" % len(children)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def write_huge_file():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("huge-%d" % os.getpid(), "wb") as file:
        os.ftruncate(file.fileno(), F["file_bytes"])
        file.seek(F["file_bytes"])
        file.write(b"x")
    return "wrote it"


def raise_priority():
    os.nice(-5)
    return "raised"


def real_time():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    return "got it"


def lock_memory():
    if libc.mlockall(3):
        raise OSError(ctypes.get_errno(), "mlockall")
    memory = bytearray(600 << 20)
    return "locked %d" % len(memory)
