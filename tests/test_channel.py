"""The control socket: whole messages in order, with descriptors, whatever the other side does or not."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator

import pytest

from mhnos_runtime.channel import ALIVE, MAX_MESSAGE_BYTES, MOVED, OUTPUT, Channel, Disconnected, Message


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    before = descriptors()
    ours, theirs = (Channel(sock) for sock in Channel.pair())
    yield ours, theirs
    ours.close()
    theirs.close()
    assert descriptors() == before, "a descriptor was leaked"


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def receive(channel: Channel, seconds: float = 5) -> Message:
    """The next message, once it is there."""
    end = time.monotonic() + seconds
    while (message := channel.receive()) is None:
        assert time.monotonic() < end, "nothing came"
        select.select([channel], [], [], 0.05)
    return message


def drain(channel: Channel, other: Channel, count: int) -> list[Message]:
    """Receive so many, flushing the other side as its loop would."""
    found: list[Message] = []
    while len(found) < count:
        found.append(receive(channel))
        other.flush()
    return found


def test_messages_and_notices(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    assert theirs.receive() is None
    said = {"event": "hello", "text": "ü\0\ud83d", "list": [1, None, True]}
    ours.send(said)
    for kind in (OUTPUT, MOVED, ALIVE):
        ours.notify(kind, 2**32 - 1)
    ours.send({})
    assert receive(theirs) == (
        b"",
        0,
        {"event": "hello", "text": "ü\0\ud83d", "list": [1, None, True]},
        [],
        True,
    )
    for kind in (OUTPUT, MOVED, ALIVE):
        assert receive(theirs) == (kind, 2**32 - 1, {}, [], True)
    assert receive(theirs).body == {}
    assert theirs.receive() is None


def test_both_ways(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send({"n": 1})
    theirs.send({"n": 2})
    assert receive(ours).body == {"n": 2}
    assert receive(theirs).body == {"n": 1}


def test_descriptors_are_duplicates_and_stay_here(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    reader, writer = os.pipe()
    ours.send({"n": 1}, [writer, reader])
    message = receive(theirs)
    assert not any(os.get_inheritable(fd) for fd in message.descriptors)
    os.write(message.descriptors[0], b"x")
    assert os.read(reader, 1) == b"x"
    for fd in (reader, writer, *message.descriptors):
        os.close(fd)


def test_the_largest_message(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    text = "x" * (MAX_MESSAGE_BYTES - len('{"t":""}'))
    ours.send({"t": text})
    assert receive(theirs).body == {"t": text}
    with pytest.raises(ValueError, match="allowed"):
        ours.send({"t": text + "x"})
    ours.send({"n": 1})
    assert receive(theirs).body == {"n": 1}


def test_what_is_not_taken_waits_in_order_with_its_descriptors(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for number in range(500):
        with open(os.devnull, "rb") as file:
            with_one = number % 5 == 0
            ours.send({"n": number, "padding": "x" * 3000}, [file.fileno()] if with_one else ())
        ours.notify(OUTPUT, number)
    assert ours.pending
    messages = drain(theirs, ours, 1000)
    assert [message.body["n"] for message in messages[::2]] == list(range(500))
    assert [message.pid for message in messages[1::2]] == list(range(500))
    for number, message in enumerate(messages[::2]):
        assert len(message.descriptors) == (1 if number % 5 == 0 else 0)
        for fd in message.descriptors:
            assert os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev
            os.close(fd)
    assert not ours.pending


def test_descriptors_that_are_found_when_they_are_sent(ends: tuple[Channel, Channel]) -> None:
    """For hundreds of messages that wait there are no duplicates."""
    ours, theirs = ends
    with open(os.devnull, "rb") as first, open("/dev/zero", "rb") as second:
        now = [first.fileno()]
        before = len(descriptors())
        count = 0
        while not ours.pending or count < 400:
            ours.send({"n": count, "padding": "x" * 2000}, lambda: now)
            count += 1
        # In flight there are many; here there is none more.
        assert len(descriptors()) == before
        now = [second.fileno()]
        devices = []
        for message in drain(theirs, ours, count):
            devices.append(os.fstat(message.descriptors[0]).st_rdev)
            os.close(message.descriptors[0])
        assert devices[0] == os.fstat(first.fileno()).st_rdev
        assert devices[-1] == os.fstat(second.fileno()).st_rdev


def test_what_waits_is_given_back_when_it_closes(ends: tuple[Channel, Channel]) -> None:
    ours, _theirs = ends
    with open(os.devnull, "rb") as file:
        while len(ours.pending) < 20:
            ours.send({"padding": "x" * 5000}, [file.fileno()])
    ours.close()
    assert not ours.pending


def test_the_end_of_the_other_side_comes_after_its_last_message(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.send({"n": 1})
    theirs.close()
    assert receive(ours).body == {"n": 1}
    with pytest.raises(Disconnected):
        ours.receive()
    with pytest.raises(Disconnected):
        ours.send({"n": 2})
    with pytest.raises(Disconnected):
        ours.notify(MOVED, 1)


def test_the_end_while_something_waits(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    while not ours.pending:
        ours.send({"padding": "x" * 5000})
    theirs.close()
    with pytest.raises(Disconnected):
        ours.flush()
    assert ours.pending


def test_neither_end_ever_blocks(ends: tuple[Channel, Channel]) -> None:
    for channel in ends:
        assert not os.get_blocking(channel.fileno())


def test_what_is_no_json_is_an_error_and_not_the_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    with socket.socket(fileno=os.dup(ours.fileno())) as raw:
        raw.send(b"not json at all")
    with pytest.raises(ValueError, match="Expecting value"):
        receive(theirs)
    ours.send({"n": 1})
    assert receive(theirs).body == {"n": 1}
