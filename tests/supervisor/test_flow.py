"""Flow control over both processes: a viewer holds a process up, for a bounded time, and loses nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import time

import pytest

from mhnos_runtime.channel import MOVED
from mhnos_runtime.output import NO_HOLD, Chunk, Cursor, Overrun
from tests.supervisor.harness import DEADLINE_SECONDS, Seen, Server, Supervised, eventually, gap_or_data

RETENTION = 1 << 16
#: Much more than log, pipe and PTY hold together.
FLOOD_BYTES = 3 << 20
FLOOD = f"""
import os
for n in range({FLOOD_BYTES >> 14}):
    os.write(1, n.to_bytes(8, 'big') * 2048)
os.write(1, b'x')
"""
WHOLE = b"".join(n.to_bytes(8, "big") * 2048 for n in range(FLOOD_BYTES >> 14)) + b"x"

#: Each byte is a segment of its own, since it waits until the one before has been read.
ALTERNATING = """
import fcntl, os, struct, termios, time
input()
os.write(1, b"x" * 2000)
for number in range(2000):
    while any(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"....")) != (0,) for fd in (1, 2)):
        time.sleep(0.0001)
    os.write(1 + (number + 1) % 2, b"y")
"""


def flood(server: Server, stall_ms: int = 60_000, go: str = "input()\n") -> Seen:
    process = server.python(go + FLOOD, retention_bytes=RETENTION, stall_ms=stall_ms)
    server.hold(process, 0)
    process.write(b"\n")
    return process


def blocked(server: Server, process: Seen) -> None:
    """Wait until the writer waits: its log is full up to the held offset."""
    head = -1

    def still() -> bool:
        nonlocal head
        before, head = head, process.log.head
        return before == head and head >= process.log.hold + RETENTION

    server.until(still, "that the process is held up")


def test_a_watched_process_waits_for_the_viewer_that_is_still_to_come(server: Server) -> None:
    process = server.python(FLOOD, retention_bytes=RETENTION, stall_ms=60_000, watched=True)
    blocked(server, process)
    assert (process.log.hold, process.log.tail) == (0, 0)
    server.hold(process)
    assert server.ended(process).bytes == FLOOD_BYTES + 1


def test_a_watched_process_waits_no_longer_than_the_stall_time(server: Server) -> None:
    process = server.python(FLOOD, retention_bytes=RETENTION, stall_ms=200, watched=True)
    assert server.ended(process).bytes == FLOOD_BYTES + 1


@pytest.mark.parametrize("pty", [None, (80, 24)])
def test_a_viewer_that_reads_slowly_gets_every_byte(server: Server, pty: tuple[int, int] | None) -> None:
    raw = "import tty; tty.setraw(1)\n" if pty else ""
    go = raw + "print(end='>', flush=True)\ninput()\n"
    process = server.python(go + FLOOD, retention_bytes=RETENTION, stall_ms=60_000, pty=pty)
    server.hold(process, 0)
    server.said(process, b">")
    process.write(b"\n")
    if pty is None:
        blocked(server, process)
    cursor, digest, count = Cursor(process.log, 0), hashlib.sha256(), 0

    def ended() -> bool:
        nonlocal count
        while (item := cursor.take(7000)) is not None:
            assert isinstance(item, Chunk)
            digest.update(item.data)
            count += len(item.data)
            server.hold(process, cursor.offset)
        return process.exit is not None

    server.until(ended, "its end")
    ended()
    assert count == process.log.head
    assert digest.digest() == hashlib.sha256(b">" + WHOLE).digest()


def test_the_end_waits_for_what_a_slow_viewer_has_not_let_in(server: Server) -> None:
    """The program has ended long before its last bytes fit into the log."""
    text = "import os; os.write(1, b'a' * 65536); os.write(1, b'b' * 65536); os.write(1, b'c' * 60000)"
    process = server.python("input()\n" + text, retention_bytes=0, stall_ms=60_000)
    server.hold(process, 0)
    process.write(b"\n")
    eventually(lambda: process.log.head == 65536, "the first part")
    cursor = Cursor(process.log, 0)
    read = b""
    deadline = time.monotonic() + 2.5  # over several of the supervisor's looks at what is left
    while time.monotonic() < deadline and len(read) < 150_000:
        item = cursor.take(9000)
        assert not isinstance(item, Overrun)
        if item is not None:
            read += item.data
            server.hold(process, cursor.offset)
        server.pump(150)
    while len(read) < 191_072:
        item = cursor.take()
        assert not isinstance(item, Overrun)
        read += b"" if item is None else item.data
        server.hold(process, cursor.offset)
        server.pump(5)
    assert read == b"a" * 65536 + b"b" * 65536 + b"c" * 60000
    assert server.ended(process).bytes == len(read)


def test_one_that_stalls_is_passed_over_after_its_time(server: Server) -> None:
    process = flood(server, stall_ms=150)
    ended = server.ended(process)
    assert ended.bytes == len(WHOLE)
    assert (ended.runtime_ms or 0) >= 150
    data, gaps = gap_or_data(Cursor(process.log, 0))
    assert gaps == [(0, process.log.tail)]
    assert data == WHOLE[process.log.tail :]
    assert len(data) >= RETENTION


def test_a_trickle_is_no_progress(server: Server) -> None:
    process = flood(server, stall_ms=300)
    blocked(server, process)
    offset = 0

    def passed_over() -> bool:
        nonlocal offset
        if process.log.tail > offset:
            return True
        offset += 10
        server.hold(process, offset)
        return False

    server.until(passed_over, "that it is passed over")
    server.hold(process)
    assert server.ended(process).bytes == len(WHOLE)


def test_the_next_one_has_its_time_also_where_it_leaves_no_room(server: Server) -> None:
    """Lines that alternate between the streams had used up all segments. The next slowest viewer stood in the
    segment of the one that was passed by, and was passed by as well, a quarter of a second later."""
    stall_s, next_hold, in_time = 0.6, 1000, False
    while not in_time:
        process = server.python(ALTERNATING, retention_bytes=0, stall_ms=round(stall_s * 1000))
        server.hold(process, 0)
        process.write(b"\n")
        server.until(lambda: process.log.tail > 0, "that it is passed by")  # noqa: B023
        start = time.monotonic()
        in_time = process.log.set_hold(next_hold)
    server.channel.notify(MOVED, process.pid)
    server.until(lambda: process.log.tail > next_hold, "that the next one is passed by")
    assert time.monotonic() - start >= stall_s
    server.hold(process)
    server.ended(process)


def test_progress_begins_the_time_anew(server: Server) -> None:
    """A viewer that takes some of it before each stall time is over keeps its place for longer than one. On a
    busy machine the test itself may be late for once."""
    assert any(_keeps_its_place(server) for _ in range(10))


def _keeps_its_place(server: Server) -> bool:
    process = flood(server, stall_ms=400)
    blocked(server, process)
    cursor = Cursor(process.log, 0)
    end = time.monotonic() + 1.0
    kept = True
    while kept and time.monotonic() < end:
        step = time.monotonic() + 0.15
        taken = 0
        while kept and taken < 1 << 16:
            item = cursor.take()
            kept = isinstance(item, Chunk)
            taken += len(item.data) if isinstance(item, Chunk) else 0
        server.hold(process, cursor.offset)
        server.until(lambda: time.monotonic() > step, "a moment")  # noqa: B023
    server.hold(process)
    server.ended(process)
    return kept


def test_a_viewer_that_leaves_lets_go_at_once(server: Server) -> None:
    process = flood(server)
    blocked(server, process)
    server.hold(process, NO_HOLD)
    assert server.ended(process, 10).bytes == len(WHOLE)


def test_a_hung_server_holds_nothing_up_for_longer(supervisor: Supervised, server: Server) -> None:
    process = flood(server, stall_ms=200)
    os.kill(server.os_pid, signal.SIGSTOP)
    eventually(lambda: process.log.head == len(WHOLE), "all of its output")
    os.kill(server.os_pid, signal.SIGCONT)
    assert server.ended(process).bytes == len(WHOLE)


def test_the_hold_outlives_the_server(supervisor: Supervised, server: Server) -> None:
    process = flood(server, stall_ms=60_000)
    blocked(server, process)
    os.kill(server.os_pid, signal.SIGKILL)
    fresh = supervisor.serve()
    again = fresh.processes[process.pid]
    assert (again.log.hold, again.log.tail) == (0, 0)
    cursor, data = Cursor(again.log, 0), b""

    def ended() -> bool:
        nonlocal data
        while (item := cursor.take()) is not None:
            assert isinstance(item, Chunk)
            data += item.data
            fresh.hold(again, cursor.offset)
        return again.exit is not None

    fresh.until(ended, "its end")
    ended()
    assert data == WHOLE


def test_both_streams_of_a_held_process_go_on(server: Server) -> None:
    script = "import os\ninput()\nfor n in range(300): os.write(1 + n % 2, bytes([n % 256]) * 1000)\n"
    process = server.python(script, retention_bytes=0, stall_ms=60_000)
    server.hold(process, 0)
    process.write(b"\n")
    eventually(lambda: process.log.head >= 60_000, "that it is held up")
    cursor, streams = Cursor(process.log, 0), [b"", b""]

    def ended() -> bool:
        while (item := cursor.take()) is not None:
            assert isinstance(item, Chunk)
            streams[item.stream] += item.data
            server.hold(process, cursor.offset)
        return process.exit is not None

    server.until(ended, "its end")
    ended()
    for stream in (0, 1):
        assert streams[stream] == b"".join(bytes([n % 256]) * 1000 for n in range(300) if n % 2 == stream)


def test_a_killed_process_ends_although_it_is_held(server: Server) -> None:
    process = flood(server, stall_ms=700)
    blocked(server, process)
    server.kill(process, signal.SIGKILL)
    ended = server.ended(process)
    assert ended.signal == "SIGKILL"
    assert ended.bytes == process.log.head


def test_input_and_signals_work_while_output_is_held(server: Server) -> None:
    script = (
        "import os,signal,sys\n"
        "signal.signal(signal.SIGINT, lambda *_: os._exit(11))\n"
        "input()\n"
        "while True: os.write(1, b'y' * 4096)\n"
    )
    process = server.python(script, retention_bytes=0, stall_ms=60_000, pty=(80, 24))
    server.hold(process, 0)
    process.write(b"\n")
    eventually(lambda: process.log.head >= 60_000, "that it is held up")
    process.write(b"\x03")
    server.until(lambda: not os.path.exists(f"/proc/{process.os_pid}/exe"), "that Ctrl-C ended it")
    server.hold(process, NO_HOLD)
    assert server.ended(process).code == 11


def test_a_flood_does_not_keep_others_waiting(server: Server) -> None:
    """Each turn reads one burst at most, so that all processes get theirs. On a busy machine an echo waits
    for a CPU as well; the quickest do not."""
    flooding = server.python("import os\nwhile True: os.write(1, b'y' * 65536)\n", retention_bytes=RETENTION)
    eventually(lambda: flooding.log.head > 1 << 16, "the flood")
    echo = server.spawn("cat")
    waits = []
    for number in range(50):
        start = time.monotonic()
        echo.write(b"%03d\n" % number)
        wanted = 4 * number + 4
        while echo.log.head < wanted:
            assert time.monotonic() - start < DEADLINE_SECONDS
        waits.append(time.monotonic() - start)
    assert sorted(waits)[5] < 0.05
    server.kill(flooding, signal.SIGKILL)
    server.ended(flooding)


def test_a_notice_comes_once_for_each_wait(server: Server) -> None:
    process = server.sh("while read line; do echo $line; done")
    assert process.log.park(0)
    process.write(b"a\n")
    server.until(lambda: process.notices == 1, "the first notice")
    process.write(b"b\n")
    eventually(lambda: process.log.head == 4, "the second line")
    assert not process.log.park(2)  # there was something already
    assert process.log.park(4)
    process.write(b"c\n")
    server.sh("exit 0")
    server.until(lambda: process.log.head == 6 and process.notices >= 2, "the notice after parking")
    assert process.notices <= 3
