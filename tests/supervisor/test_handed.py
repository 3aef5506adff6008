"""Descriptors that a program is handed by number, its control socket, and what a server has noted of it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mhnos_runtime.launch import FIRST_HANDED, MAX_HANDED, Choice, LaunchPlan, Wish
from mhnos_runtime.supervisor.child import ChildDescriptors
from tests.supervisor.harness import Refused, Server, Supervised, eventually

#: What is open in a program, as "number: what it is".
LIST = "cd /proc/self/fd; for fd in *; do echo $fd: $(readlink $fd); done"


#: Greets the first who connects, and waits for another.
ACCEPT = """
import socket
listener = socket.socket(fileno={})
connection, _ = listener.accept()
connection.sendall(b"hello")
listener.accept()
"""


TELL = "import os; os.write({0}, b'told\\n'); os.read(0, 1); os.write({0}, b'more\\n')"


def _open(text: bytes) -> dict[int, str]:
    rows = re.findall(r"^(\d+): (.+)$", text.decode(), re.MULTILINE)
    return {int(number): what for number, what in rows if "/fd" not in what}


def _memory(text: bytes) -> int:
    fd = os.memfd_create("handed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, text)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    return fd


@pytest.mark.parametrize("pty", [None, (80, 24)])
def test_they_stand_under_their_numbers_and_nothing_else_does(
    server: Server, pty: tuple[int, int] | None
) -> None:
    hand = [_memory(b"%d" % number) for number in range(MAX_HANDED)]
    process = server.sh(LIST, hand=hand, control=True, pty=pty)
    for fd in hand:
        os.close(fd)
    server.ended(process)
    found = _open(process.output())
    numbers = range(FIRST_HANDED, FIRST_HANDED + MAX_HANDED)
    # 3 is the shell's own, for what it lists.
    assert sorted(number for number in found if number > 3) == [*numbers, FIRST_HANDED + MAX_HANDED]
    assert all("memfd:handed" in found[number] for number in numbers)
    assert found[FIRST_HANDED + MAX_HANDED].startswith("socket:")


def test_a_limit_of_open_files_does_not_take_them_away(server: Server) -> None:
    fd = _memory(b"handed")
    os.lseek(fd, 0, os.SEEK_SET)
    process = server.sh(f"cat /proc/self/fd/{FIRST_HANDED}", hand=[fd], choice=Choice(Wish(open_files=20)))
    os.close(fd)
    server.ended(process)
    assert process.output() == b"handed"


def test_a_listening_socket_is_the_program_s_alone(supervisor: Supervised, server: Server) -> None:
    """When the program ends nobody listens any more; while it lives the supervisor has no copy."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    code = ACCEPT.format(FIRST_HANDED)
    process = server.python(code, hand=[listener.fileno()])
    name = os.readlink(f"/proc/self/fd/{listener.fileno()}")
    listener.close()
    assert name not in supervisor.descriptors()
    with socket.create_connection(address, 20) as connection:
        assert connection.recv(9) == b"hello"
    server.kill(process, signal.SIGKILL)
    server.ended(process)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 20).close()


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 20).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_start_that_fails_gives_them_back(supervisor: Supervised, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = len(supervisor.descriptors())
        for _ in range(3):
            with pytest.raises(Refused):
                server.spawn("/nonexistent/program", hand=[listener.fileno()], control=True)
        address = listener.getsockname()
    # The child tells why before it ends, and has them until then.
    eventually(lambda: refuses(address), "that nobody listens")
    eventually(lambda: len(supervisor.descriptors()) <= before + 1, "no more descriptors than before")


def test_every_server_gets_the_control_socket(supervisor: Supervised, server: Server) -> None:
    """What one has looked at without taking it the next one still finds; also after the program's end."""
    process = server.python(TELL.format(FIRST_HANDED), control=True)
    assert process.record.control
    assert process.record.stdin_open

    def looked() -> bytes:
        try:
            with socket.socket(fileno=os.dup(process.control_fd)) as control:
                return control.recv(100, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    assert server.until(looked, "what was told") == b"told\n"
    os.kill(server.os_pid, signal.SIGKILL)
    second = supervisor.serve()
    process = second.processes[process.pid]
    assert looked() == b"told\n"
    process.write(b"\n")
    second.ended(process)
    assert looked() == b"told\nmore\n"


def test_what_is_noted_is_kept(supervisor: Supervised, server: Server) -> None:
    process = server.sh("read x", facts={"own": 1, "ready": None})
    found = {"ready": {"state": "ready"}, "ports": [1, "ü"]}
    server.ask("note", process, found=found)
    path = supervisor.state_dir / "processes" / f"{process.pid}.json"
    eventually(lambda: path.exists() and "ports" in json.loads(path.read_text())["facts"], "a record")
    os.kill(server.os_pid, signal.SIGKILL)
    second = supervisor.serve()
    assert second.processes[process.pid].record.facts == {"own": 1, **found}
    second.processes[process.pid].write(b"\n")
    second.ended(second.processes[process.pid])
    # Also of one that has ended, and of one that is not there.
    second.ask("note", second.processes[process.pid], found={"later": True})
    second.channel.send({"do": "note", "pid": 4711, "found": {}})
    second.ended(second.sh("true"))
    assert json.loads(path.read_text())["facts"]["later"] is True


def test_a_child_that_did_not_get_everything_executes_nothing(tmp_path: Path) -> None:
    """What is missing could be the namespace that keeps it in."""
    plan = LaunchPlan(argv=("/bin/touch", str(tmp_path / "made")), env={})
    reader, writer = os.pipe()
    code = (
        "import json, os, sys; from mhnos_runtime.launch import LaunchPlan;"
        "from mhnos_runtime.supervisor import child;"
        "fds = [os.open('.', os.O_RDONLY), int(sys.argv[2]), 0, 1, 2];"
        "child.become(LaunchPlan.from_dict(json.loads(sys.argv[1])), [], fds, int(sys.argv[3]))"
    )
    told = []
    for sent in (6, 5):
        command = [sys.executable, "-c", code, json.dumps(plan.to_dict()), str(writer), str(sent)]
        subprocess.run(command, pass_fds=[writer], check=sent == 5)
        told.append((tmp_path / "made").exists())
    os.close(writer)
    assert told == [False, True]
    with open(reader, "rb") as verdict:
        assert verdict.read() == f"setup:{errno.EMFILE}".encode()


@pytest.mark.parametrize(
    "descriptors",
    [
        ChildDescriptors(3, 4, (5, 6, 7)),
        ChildDescriptors(3, 4, (5, 5, 5), handed=(8, 9)),
        ChildDescriptors(3, 4, (5, 5, 5), 10, (11, 12, 13)),
        ChildDescriptors(3, 4, (5, 6, 7), 10, (11, 12), (8, 9)),
    ],
)
def test_what_a_child_gets_arrives_as_it_was_sent(descriptors: ChildDescriptors) -> None:
    assert ChildDescriptors.received(descriptors.sent(), len(descriptors.handed)) == descriptors
