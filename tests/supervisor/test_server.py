"""Servers come and go, processes stay: what a new server is told, and how the supervisor keeps one
running."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from mhnos_runtime.channel import Channel
from mhnos_runtime.launch import Hello
from tests.supervisor.harness import (
    HELLO,
    Refused,
    Seen,
    Server,
    Supervised,
    alive,
    eventually,
    supervised,
    which,
)


def nested(levels: int) -> dict[str, object]:
    return {"a": nested(levels - 1)} if levels else {}


def replace(supervisor: Supervised, server: Server, number: int = signal.SIGKILL) -> Server:
    os.kill(server.os_pid, number)
    return supervisor.serve()


def test_a_server_is_told_who_it_is_first(supervisor: Supervised) -> None:
    server = supervisor.serve()
    hello, ready = server.events
    assert hello == {"event": "hello", **json.loads(json.dumps(HELLO.to_dict()))}
    assert Hello.from_dict(hello).token == HELLO.token
    assert ready == {"event": "ready"}


def test_a_new_server_gets_everything_back(supervisor: Supervised, server: Server) -> None:
    piped = server.sh(
        "echo one; while read line; do echo got $line; done; exit 3", facts={"name": "ä", "n": [1]}
    )
    terminal = server.spawn("bash", "--norc", "-i", pty=(80, 24))
    ended = server.sh("echo gone; exit 9")
    server.ended(ended)
    server.ask("size", terminal, columns=101, rows=31)
    server.ended(server.sh("exit 0"))
    server.said(piped, b"one")

    fresh = replace(supervisor, server)

    assert [body["event"] for body in fresh.events] == ["hello", *["restored"] * 4, "ready"]
    assert fresh.events[0]["spawned"] == 4
    again = fresh.processes[piped.pid]
    assert again.record == piped.record
    assert again.output() == b"one\n"
    again.write(b"you\n")
    fresh.said(again, b"got you")
    assert fresh.processes[terminal.pid].record.pty == (101, 31)
    fresh.processes[terminal.pid].write(b"echo $((40+2))\n")
    fresh.said(fresh.processes[terminal.pid], b"42")
    assert fresh.processes[ended.pid].exit == ended.exit
    assert fresh.processes[ended.pid].output() == b"gone\n"
    fresh.ask("close_stdin", again)
    os.close(again.input_fd)
    again.input_fd = -1
    for fd in (piped.input_fd, terminal.input_fd):
        os.close(fd)
    piped.input_fd = terminal.input_fd = -1
    assert fresh.ended(again).code == 3


def test_what_a_server_knows_of_the_token_is_told_to_the_next_one(
    supervisor: Supervised, server: Server
) -> None:
    """A mode that a process changed locked everybody out as soon as the server was another one."""
    known = {"digest": "d" * 64, "device": 1, "inode": 2, "exposed": True, "refused": 0}
    server.channel.send({"do": "token", "token": known})
    server.ended(server.sh("exit 0"))  # it has been read
    fresh = replace(supervisor, server, signal.SIGTERM)
    assert fresh.events[0]["token"] == known
    fresh.channel.send({"do": "token", "token": None})
    fresh.ended(fresh.sh("exit 0"))
    assert replace(supervisor, fresh, signal.SIGTERM).events[0]["token"] is None


def test_output_and_ends_while_there_is_no_server(supervisor: Supervised, server: Server) -> None:
    process = server.sh("read line; for n in 1 2 3; do echo $n; sleep 0.02; done; exit 6")
    server.said(process, b"")
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(server.os_pid, signal.SIGKILL)
    process.write(b"\n")
    os.kill(supervisor.pid, signal.SIGCONT)
    fresh = supervisor.serve()
    ended = fresh.ended(fresh.processes[process.pid])
    assert (ended.code, ended.reason) == (6, "exit")
    assert fresh.processes[process.pid].output() == b"1\n2\n3\n"


def test_a_forgotten_process_stays_forgotten(supervisor: Supervised, server: Server) -> None:
    process = server.sh("exit 0")
    server.ended(process)
    server.ask("forget", process)
    server.sh("exit 0")
    assert process.pid not in replace(supervisor, server).processes


def test_closed_input_stays_closed(supervisor: Supervised, server: Server) -> None:
    process = server.sh("cat >/dev/null; sleep 60")
    server.ask("close_stdin", process)
    server.sh("exit 0")
    again = replace(supervisor, server).processes[process.pid]
    assert not again.record.stdin_open
    assert again.input_fd == -1


def test_requests_under_way_do_not_answer_the_next_servers(supervisor: Supervised, server: Server) -> None:
    """Each server counts its requests from the same number: those of the last one come before `ready`."""
    os.kill(supervisor.pid, signal.SIGSTOP)
    server.request(("/bin/sh", "-c", "exit 1"))
    server.request(("/no/such",))
    eventually(lambda: _arrived(server), "that the bridge has passed them on")
    os.kill(server.os_pid, signal.SIGKILL)
    os.kill(supervisor.pid, signal.SIGCONT)
    fresh = supervisor.serve()
    request = fresh.request(("/bin/sh", "-c", "exit 2"))
    assert fresh.ended(fresh.answer(request)).code == 2
    ready = next(number for number, body in enumerate(fresh.events) if body["event"] == "ready")
    assert [body["request"] for body in fresh.events[ready:] if "request" in body] == [request]


def _arrived(server: Server) -> bool:
    """Whether the bridge waits again, with nothing left to pass on."""
    return b"S" in Path(f"/proc/{server.os_pid}/stat").read_bytes().rpartition(b")")[2].split()[0]


def test_hang_up_replaces_everything_on_purpose(supervisor: Supervised, server: Server) -> None:
    process = server.sh("echo up; read line")
    server.said(process, b"up")
    supervisor.popen.send_signal(signal.SIGHUP)
    fresh = supervisor.serve()
    assert fresh.os_pid != server.os_pid
    assert fresh.processes[process.pid].os_pid == process.os_pid
    assert not alive(server.os_pid)
    assert "reloading" in supervisor.log


def test_a_process_that_cannot_be_taken_over_ends_alone(supervisor: Supervised, server: Server) -> None:
    """A server can write to the headers of logs, and so into what the next supervisor reads."""
    harmed, other = server.sh("cat"), server.sh("cat")
    log = supervisor.state_dir / "processes" / f"{harmed.pid}.log"
    eventually(lambda: f"{harmed.pid}.json" in supervisor.files(), "its record")
    with log.open("r+b") as file:
        file.write(b"?" * 64)
    supervisor.popen.send_signal(signal.SIGHUP)
    fresh = supervisor.serve()
    assert list(fresh.processes) == [other.pid]
    eventually(lambda: not alive(harmed.os_pid), "the end of what was harmed")
    fresh.processes[other.pid].write(b"goes on\n")
    fresh.said(fresh.processes[other.pid], b"goes on")
    assert "it could not be taken over" in supervisor.log
    assert (log.parent / "set-aside" / log.name).exists()


def test_a_server_that_closes_its_end_is_replaced(supervisor: Supervised, server: Server) -> None:
    """Not only one that exits: two servers at once would both read the logs and answer clients."""
    server.channel.close()
    fresh = supervisor.serve()
    eventually(lambda: not alive(server.os_pid), "the end of the first")
    assert fresh.os_pid != server.os_pid


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": "dance"},
        {"do": "kill"},
        {"do": "kill", "pid": 1000, "signal": "SIGKILL", "reason": "x", "escalate": 1},
        {"do": "kill", "pid": 1000, "signal": 10**30, "reason": "killed", "escalate": True},
        {"do": "spawn", "request": 1},
        {"do": "spawn", "request": 1, "plan": {"argv": []}},
        {"do": "size", "pid": 1000},
        {"do": "token"},
        {"do": "token", "token": {"digest": "x" * 1001}},
        {"do": "token", "token": "x"},
        {"do": "size", "pid": 1000, "columns": 10**12, "rows": 1},
        {"do": "note", "pid": 1000, "found": {"more": "\0" * 24_000}},
        {"do": "note", "pid": 1000, "found": nested(200)},
    ],
)
def test_a_message_that_makes_no_sense_costs_nothing(
    supervisor: Supervised, server: Server, message: dict[str, object]
) -> None:
    """A server that has gone wrong, or was taken over, is told no; the processes are not to pay for it."""
    process = server.sh("echo up; read line; exit 3", facts={"name": "n" * 20_000})
    server.said(process, b"up")
    server.channel.send(message)
    if message.get("do") == "spawn":
        assert server.event("refused", request=1)["code"] == "invalid-argument"
    eventually(lambda: "a message of the server was refused" in supervisor.log, "a line about it")
    process.write(b"\n")
    assert server.ended(process).code == 3
    assert supervisor.serve_again().processes[process.pid].record.pty is None


@pytest.mark.parametrize("data", [b"[" * 100_000, b"{", b"[1]", b"\xff" * 9, b"null   ", b'"\\ud800"  '])
def test_what_is_no_message_costs_nothing_and_its_descriptors_are_closed(
    supervisor: Supervised, server: Server, data: bytes
) -> None:
    theirs = os.memfd_create("theirs")
    for _ in range(5):
        server.send_raw(data, [theirs, theirs])
    os.close(theirs)
    assert server.ended(server.sh("exit 4")).code == 4
    assert "a message of the server was refused" in supervisor.log
    assert not [name for name in supervisor.descriptors() if "theirs" in name]


def test_a_record_never_outgrows_what_a_server_can_be_told(supervisor: Supervised, server: Server) -> None:
    """A name of 140 KB, and ports that came to be known later, once made a record that no message carried:
    the next server's start ended the supervisor, and so did every start from then on."""
    with pytest.raises(Refused) as refused:
        server.sh("exit 0", facts={"name": "n" * 140_000})
    assert refused.value.body["code"] == "too-large"
    process = server.sh("read line", facts={"name": "\1" * 18_000})
    ports = [{"name": "\1" * 128, "port": number} for number in range(64)]
    server.ask("note", process, found={"ports": ports[:32]})
    server.ask("note", process, found={"ports": ports})
    eventually(lambda: supervisor.log.count("a message of the server was refused") == 2, "the second line")
    again = supervisor.serve_again().processes[process.pid]
    assert len(again.record.facts["ports"]) == 32


def test_a_server_that_dies_at_once_is_restarted_with_pauses(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    script = f"import time; print(time.monotonic(), file=open({str(starts)!r}, 'a')); raise SystemExit(7)"
    with supervised(tmp_path, ["-I", "-S", "-c", script]) as running:
        eventually(lambda: starts.exists() and starts.read_text().count("\n") >= 4, "the fourth start")
        at = [float(line) for line in starts.read_text().split()]
        assert at[3] - at[2] > 0.9
        assert "code=7" in running.log
        running.popen.send_signal(signal.SIGTERM)
        assert running.wait() == 0


def test_a_server_that_does_not_take_anything_costs_nobody_else(
    supervisor: Supervised, server: Server
) -> None:
    """What it was not sent waits, in order and bounded, and processes run on."""
    processes = [server.sh("read line; echo out; exit 0") for _ in range(60)]
    os.kill(server.os_pid, signal.SIGSTOP)
    for process in processes:
        process.log.park(0)
        process.write(b"\n")
    eventually(lambda: all(process.log.head == 4 for process in processes), "the output of all")
    eventually(lambda: not any(alive(process.os_pid) for process in processes), "the end of all")
    os.kill(server.os_pid, signal.SIGCONT)
    for process in processes:
        assert server.ended(process).code == 0
        assert process.notices == 1


def test_hundreds_of_processes_are_given_back(supervisor: Supervised, server: Server, tmp_path: Path) -> None:
    """More than the channel takes at once, with descriptors that come and go meanwhile; and no descriptor
    more than the processes themselves need."""
    count = 300
    facts = {"padding": "x" * 2000}
    requests = [server.request((which("sleep"), "60"), facts=facts, retention_bytes=0) for _ in range(count)]
    processes = [server.answer(request) for request in requests]
    before = len(supervisor.descriptors())
    os.kill(server.os_pid, signal.SIGKILL)
    slow = supervisor.accept()
    eventually(lambda: len(supervisor.descriptors()) >= before, "that it waits")
    assert len(supervisor.descriptors()) <= before + 8
    # The end of one whose restoration still waits, and input that is closed: both are told in order.
    os.kill(processes[-1].os_pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{processes[-1].os_pid}").exists(), "the end of one")
    slow.event("ready")
    assert list(slow.processes) == [process.pid for process in processes]
    assert slow.ended(slow.processes[processes[-1].pid]).signal == "SIGKILL"
    assert all(seen.input_fd >= 0 for seen in list(slow.processes.values())[:-1])
    _end(supervisor, slow.processes)


def _end(supervisor: Supervised, processes: dict[int, Seen]) -> None:
    supervisor.popen.send_signal(signal.SIGTERM)
    supervisor.popen.send_signal(signal.SIGTERM)
    assert supervisor.wait() == 0
    eventually(lambda: not any(alive(seen.os_pid) for seen in processes.values()), "the end of all")


def test_the_server_is_not_hurt_by_an_interrupt_for_all(supervisor: Supervised, server: Server) -> None:
    """Ctrl-C on the terminal that `serve` runs on goes to its group: the server is in one of its own."""
    assert os.getpgid(server.os_pid) == server.os_pid


def test_idle_costs_nothing(supervisor: Supervised, server: Server) -> None:
    process = server.sh("echo up; read line")
    terminal = server.sh("exec >/dev/null 2>&1 </dev/null; read line </dev/tty", pty=(80, 24))
    server.said(process, b"up")
    used = _cpu_ticks(supervisor)
    deadline = time.monotonic() + 0.5
    server.until(lambda: time.monotonic() > deadline, "half a second")
    assert _cpu_ticks(supervisor) - used <= 3
    assert alive(terminal.os_pid)


def _cpu_ticks(supervisor: Supervised) -> int:
    fields = Path(f"/proc/{supervisor.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_channel_is_nobody_elses(server: Server) -> None:
    """A process that inherited it could ask the supervisor for anything."""
    process = server.sh("ls -l /proc/self/fd")
    server.ended(process)
    assert b"socket" not in process.output()


def test_pair_is_whole_messages_both_ways() -> None:
    ours, theirs = Channel.pair()
    with ours, theirs:
        ours.send(b"a")
        ours.send(b"b")
        assert theirs.recv(100) == b"a"
