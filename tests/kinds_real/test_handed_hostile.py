"""A socket that is handed into a sandbox without network must not be a way out of it."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.sandbox.facts import HostFacts
from tests.kinds_real.conftest import opened
from tests.sandbox.conftest import require

pytestmark = pytest.mark.timeout(60)

KINDS = """
[kinds.handed]
argv = ["python3", "{command}", "{socket}", "{args}"]
"""
#: A listening socket, and what it accepts, belong to the machine's network. Disconnected, they could be
#: connected anew; each way says what came of it.
ATTACK = """
import ctypes, fcntl, json, os, socket, sys
handed, port = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
UNSPECIFIED = (ctypes.c_char * 16)()
found = {}

def attempt(name, action):
    try:
        action()
        found[name] = "out"
    except OSError as error:
        found[name] = error.strerror

def disconnect(fd):
    if libc.connect(fd, UNSPECIFIED, 16) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def again(sock):
    disconnect(sock.fileno())
    sock.connect(("127.0.0.1", port))

def after_shutdown(sock):
    sock.shutdown(socket.SHUT_RDWR)
    sock.connect(("127.0.0.1", port))

def fast_open(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.sendto(b"out", 0x20000000, ("127.0.0.1", port))

def fast_open_message(sock):
    sock.sendmsg([b"out"], [], 0x20000000, ("127.0.0.1", port))

def interfaces(sock):
    fcntl.ioctl(sock.fileno(), 0x8912, bytes(16))

listener = socket.socket(fileno=handed)
print("serving", flush=True)
accepted, _ = listener.accept()
while accepted.recv(1) != b"!":  # somebody else, who took this port for that of a server before
    accepted, _ = listener.accept()
accepted.sendall(b"hello")
attempt("interfaces", lambda: interfaces(listener))
attempt("accepted", lambda: again(accepted))
attempt("accepted, shut down", lambda: after_shutdown(accepted))
attempt("accepted, fast open", lambda: fast_open(accepted))
attempt("listener", lambda: again(listener))
attempt("listener, shut down", lambda: after_shutdown(listener))
attempt("listener, fast open", lambda: fast_open(listener))
attempt("listener, fast open message", lambda: fast_open_message(listener))
print(json.dumps(found), flush=True)
"""


@pytest.fixture
def target() -> Iterator[tuple[int, list[str]]]:
    """A service of the machine, and who has reached it."""
    reached: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                reached.append(str(address))
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], reached
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("level", "network"), [("strict", "none"), ("strict", "loopback"), ("relaxed", "none"), ("none", "host")]
)
async def test_no_way_out_through_it(
    level: str, network: str, facts: HostFacts, folder: Path, target: tuple[int, list[str]]
) -> None:
    """At level none, where nothing is promised, the same attempts succeed: the test can fail."""
    require(facts, level)
    port, reached = target
    (folder / "config.toml").write_text(KINDS)
    async with opened(
        folder, folder / "engines", level, network, "--config", str(folder / "config.toml")
    ) as arena:
        arena.write("attack.py", ATTACK)
        pid = await arena.client.spawn("handed", "attack.py", str(port))
        (own,) = (await arena.record(pid))["ports"]
        with socket.create_connection(("127.0.0.1", own["port"]), timeout=20) as connection:
            connection.sendall(b"!")
            assert connection.recv(5) == b"hello"
            await arena.ended(pid)
        text = arena.client.output(pid)
        found = json.loads(text.splitlines()[-1])
    shutil.rmtree(folder / "server", ignore_errors=True)
    if level == "none":
        assert found["listener"] == "out" or found["accepted"] == "out"
        assert reached
    else:
        assert "out" not in found.values(), found
        assert found["interfaces"] == found["listener"] == "Permission denied"
        assert not reached
