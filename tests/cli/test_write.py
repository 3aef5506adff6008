"""`write` against a server that makes it wait: what was typed once is not typed again."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner

from mhnos_runtime.cli.write import write
from mhnos_runtime.wire import frames
from tests.client.peer import Peer, Scripted
from tests.server import raw

PROCESS = {
    "pid": 1000,
    "type": "shell",
    "command": "cat",
    "args": [],
    "startTime": 1,
    "status": "running",
    "pty": None,
    "firstOffset": 0,
    "nextOffset": 0,
    "exit": None,
}
STATS = {"totalSpawned": 1, "totalKilled": 0, "active": 1}


def begins(peer: Peer, typed: int) -> tuple[str, bytes]:
    """Answer up to the first frame of input: the client's name, and what it types from `typed` on."""
    peer.greet()
    peer.say(type="processList", id=peer.request()["id"], processes=[PROCESS], stats=STATS)
    opened = peer.request()
    peer.say(type="inputOpened", id=opened["id"], pid=1000, next=typed)
    return opened["client"], b"" if typed == 6 else piece(peer, typed)


def piece(peer: Peer, offset: int) -> bytes:
    opcode, frame = peer.frame()
    assert opcode == raw.BINARY
    assert frame.startswith(frames.pack_header(frames.INPUT, frames.NUMBERED, 1000, offset))
    return frame[frames.HEADER_BYTES :]


def written(server: Scripted, *args: str) -> Any:
    return CliRunner().invoke(
        write, ["--url", server.url, *args], env={"MHNOS_TOKEN": "x"}, standalone_mode=False
    )


def test_a_text_is_typed_at_once_and_the_input_closed() -> None:
    def script(peer: Peer) -> None:
        assert begins(peer, 0)[1] == b"hello\r"
        peer.say(type="inputAck", pid=1000, next=3)
        peer.say(type="inputAck", pid=1000, next=6)
        closing = peer.request()
        assert closing["type"] == "closeStdin"
        peer.say(type="stdinClosed", id=closing["id"], pid=1000)
        peer.until_closed()

    with Scripted(script) as server:
        assert written(server, "--enter", "--close", "1000", "hello").return_value == 0


def test_where_there_is_no_room_it_goes_on_under_the_same_name() -> None:
    names = []

    def full(peer: Peer) -> None:
        name, data = begins(peer, 0)
        assert data == b"hello\r"
        names.append(name)
        peer.say(type="error", pid=1000, error="full", code="input-full", retry=True)
        peer.until_closed()

    def patient(peer: Peer) -> None:
        name, data = begins(peer, 2)
        assert data == b"llo\r"
        names.append(name)
        peer.say(type="inputAck", pid=1000, next=6)
        peer.until_closed()

    with Scripted(full, patient) as server:
        assert written(server, "--enter", "1000", "hello").return_value == 0
    assert names[0] == names[1]


def test_a_connection_that_is_lost_before_the_answer_types_nothing_twice() -> None:
    names = []

    def cut(peer: Peer) -> None:
        names.append(begins(peer, 0)[0])

    def whole(peer: Peer) -> None:
        names.append(begins(peer, 6)[0])
        peer.until_closed()

    with Scripted(cut, whole) as server:
        assert written(server, "--enter", "1000", "hello").return_value == 0
    assert names[0] == names[1]


def test_a_closed_input_is_told() -> None:
    def script(peer: Peer) -> None:
        begins(peer, 0)
        peer.say(type="error", pid=1000, error="its input is closed", code="input-closed", retry=False)
        peer.until_closed()

    with Scripted(script) as server:
        result = written(server, "1000", "hello")
    assert "its input is closed" in str(result.exception)
