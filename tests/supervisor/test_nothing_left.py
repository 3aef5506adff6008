"""A machine that has nothing left when it matters most: nothing is lost by that, and nothing else ends."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.bounds import MAX_PID, MESSAGE_BYTES
from mhnos_runtime.channel import OUTPUT, Channel, Disconnected
from mhnos_runtime.errors import LimitReached
from mhnos_runtime.launch import LaunchPlan, Limits, ProcessRecord, StartDescriptors
from mhnos_runtime.supervisor.archive import Archive
from mhnos_runtime.supervisor.launcher import Launcher
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.surroundings import Surroundings
from tests.supervisor.harness import Refused, eventually, supervised
from tests.supervisor.test_defects import broken


class Crowded(socket.socket):
    """One over which no descriptor and no message goes for a while."""

    refusals = 0
    tries = 0

    def _refuse(self) -> None:
        self.tries += 1
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ETOOMANYREFS, "too many")

    def sendmsg(self, *given: Any) -> int:
        self._refuse()
        return super().sendmsg(*given)

    def send(self, *given: Any) -> int:
        self._refuse()
        return super().send(*given)


def crowded() -> tuple[Crowded, socket.socket]:
    ours, theirs = Channel.pair()
    theirs.settimeout(10)
    return Crowded(fileno=ours.detach()), theirs


def with_few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))


def test_a_start_finds_more_records_than_it_has_descriptors(tmp_path: Path) -> None:
    """Those that it could read took all, and it died of that at each start; the others were set aside."""
    processes = tmp_path / "state" / "processes"
    archive = Archive(processes)
    for pid in range(1000, 1100):
        archive.new_log(pid, 0).close()
        archive.save(ProcessRecord(pid, 1, 0, None, {}))
    with supervised(tmp_path, preexec_fn=with_few_descriptors) as running:
        server = running.serve()
        assert max(server.processes) == 1099  # the newest are there
        assert 20 < len(server.processes) < 60
        assert server.ended(server.sh("exit 3")).code == 3
        assert "it stays there" in running.log
        assert len(list(processes.glob("1*.json"))) == 101
        assert not (processes / "set-aside").exists()


def test_a_name_with_the_last_number_of_all_takes_no_pid_from_those_to_come(tmp_path: Path) -> None:
    """The next process had a pid that no request can name: it could not be killed."""
    processes = tmp_path / "state" / "processes"
    Archive(processes).new_log(MAX_PID, 0).close()
    with supervised(tmp_path) as running:
        server = running.serve()
        process = server.sh("sleep 60")
        server.kill(process, 9)
        assert server.ended(process).signal == "SIGKILL"
    assert (processes / f"{MAX_PID}.log").exists()


def test_a_terminal_with_a_defect_does_not_cost_each_server_that_comes(tmp_path: Path) -> None:
    """Its master was closed, and each server was sent the number of it, which ended the connection."""
    with broken(tmp_path, "capture Capture typed") as running:
        server = running.serve()
        process = server.sh("sleep 60", pty=(80, 24))
        server.channel.notify(b"T", process.pid)
        server.ended(process)
        again = running.serve_again()
        assert not again.processes[process.pid].record.stdin_open
        assert again.ended(again.sh("exit 3")).code == 3


def test_a_start_that_fails_at_its_last_step_leaves_nothing(tmp_path: Path) -> None:
    """The program ran on, in no list, with its pipes."""
    with broken(tmp_path, "capture Capture _watch") as running:
        server = running.serve()
        mark = f"{os.getpid()}{time.monotonic_ns()}"
        with pytest.raises(Refused) as refused:
            server.sh(f"exec sleep 60 {mark}")
        assert refused.value.body["code"] == "internal"
        eventually(lambda: mark not in _command_lines(), "the end of the program")
        assert not [what for what in running.descriptors() if what.endswith("1000.log")]


def _command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if int(path.parent.name) != os.getpid():
                found.append(path.read_bytes().decode(errors="replace"))
    return " ".join(found).replace("\0", " ")


def test_a_start_is_answered_though_its_limits_cannot_be_watched(tmp_path: Path) -> None:
    with broken(tmp_path, "process Process _watch_limits") as running:
        server = running.serve()
        process = server.sh("sleep 60")
        assert "a defect of the runtime" in server.ended(process).evidence


# The channel


def test_what_the_kernel_refuses_for_a_while_is_sent_later() -> None:
    """A server was given up for it, and the next one too."""
    sock, theirs = crowded()
    ours = Channel(sock)
    with theirs, contextlib.closing(ours), open(os.devnull, "rb") as file:
        sock.refusals = 2
        ours.send({"n": 1}, [file.fileno()])
        ours.notify(OUTPUT, 2)
        assert (len(ours.pending), ours.postponed) == (2, True)
        ours.flush()
        assert (len(ours.pending), ours.postponed) == (2, True)
        ours.flush()
        assert (len(ours.pending), ours.postponed) == (0, False)
        other = Channel(theirs)
        message = other.receive()
        assert message is not None
        assert message.body == {"n": 1}
        [fd] = message.descriptors
        os.close(fd)


def test_a_closed_descriptor_costs_its_message_and_not_the_other_end() -> None:
    ours, theirs = map(Channel, Channel.pair())
    with contextlib.closing(ours), contextlib.closing(theirs):
        reader, writer = os.pipe()
        os.close(reader)
        os.close(writer)
        ours.send({"n": 1}, [writer])
        message = theirs.receive()
        assert message is not None
        assert (message.body, message.descriptors) == ({"n": 1}, [])
    with pytest.raises(Disconnected):
        ours.send({"n": 2}, [writer])


def test_a_small_send_buffer_refuses_what_it_cannot_take() -> None:
    """The other end was taken for gone."""
    ours, theirs = Channel.pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    with theirs, contextlib.closing(Channel(ours)) as channel:
        with pytest.raises(ValueError, match="allowed"):
            channel.send({"t": "x" * (MESSAGE_BYTES - 100)})
        channel.send({"t": "x" * 30_000})


def test_duplicates_for_a_message_that_waits_are_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Channel.pair()
    with theirs, contextlib.closing(Channel(ours)) as channel, open(os.devnull, "rb") as file:
        while not channel.pending:
            channel.send({"padding": "x" * 5000})
        before, dup, left = sorted(os.listdir("/proc/self/fd")), os.dup, [file.fileno()] * 2

        def scarce(fd: int) -> int:
            if not left:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return dup(left.pop())

        monkeypatch.setattr(os, "dup", scarce)
        with pytest.raises(OSError, match="Too many open files"):
            channel.send({"n": 1}, [file.fileno()] * 3)
        assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_start_whose_descriptors_cannot_be_sent_now_is_refused_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The child in its control groups was forgotten with them, and no later start could make its own."""
    loop = Loop()
    launcher = Launcher(loop, lambda: 1000)

    def refuse(*_: Any) -> int:
        raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

    folder = os.open("/", os.O_PATH)
    plan = LaunchPlan(("/bin/true",), {})
    around = Surroundings(loop, Limits(), None, None)
    launcher.prepare()
    os_pid = launcher.os_pid
    try:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "send_fds", refuse)
            with pytest.raises(LimitReached) as refused:
                launcher.start(plan, StartDescriptors(folder), around)
        assert refused.value.code == "start-failed"
        assert launcher.os_pid == os_pid
        child = launcher.start(plan, StartDescriptors(folder), around)
        assert os.waitpid(child.os_pid, 0)[0] == os_pid
        for fd in {*child.sources, child.input_fd, child.verdict_fd}:
            os.close(fd)
    finally:
        os.close(folder)
        loop.close()
