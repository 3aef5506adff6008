"""An exception in the supervisor's own code costs one process, or nobody; it once ended every process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.channel import TYPED
from mhnos_runtime.supervisor.log import LINES_A_MINUTE, Log, place
from mhnos_runtime.supervisor.loop import Loop
from tests.supervisor.harness import Refused, Seen, Server, Supervised, alive, eventually, supervised

FAULTY = Path(__file__).with_name("faulty")


@contextlib.contextmanager
def broken(tmp_path: Path, where: str) -> Iterator[Supervised]:
    environment = {**os.environ, "PYTHONPATH": str(FAULTY), "MHNOS_TEST_FAULT": where}
    with supervised(tmp_path, env=environment) as supervisor:
        yield supervisor


def nothing(_server: Server, _process: Seen) -> None: ...


def typed(server: Server, process: Seen) -> None:
    server.channel.notify(TYPED, process.pid)


def killed(server: Server, process: Seen) -> None:
    server.kill(process, signal.SIGKILL)


def noted(server: Server, process: Seen) -> None:
    server.ask("note", process, found={"a": 1})


def gone(_server: Server, process: Seen) -> None:
    os.kill(process.os_pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("where", "act", "reason"),
    [
        ("capture Capture _read", lambda _server, process: process.write(b"x\n"), "killed"),
        ("capture Capture typed", typed, "killed"),
        ("capture Capture drain", gone, "signal"),
        ("process Process _settle", nothing, "killed"),
        ("process Process note", noted, "killed"),
        ("process Process end", killed, "lost"),
        ("process Process main_exited", gone, "lost"),
        ("process Process _exit_record", gone, "lost"),
        ("process Process _source_closed", gone, "signal"),
    ],
)
def test_a_defect_costs_the_process_it_belongs_to(
    tmp_path: Path, where: str, act: Callable[[Server, Seen], None], reason: str
) -> None:
    with broken(tmp_path, where) as supervisor:
        server = supervisor.serve()
        process, other = (server.sh("cat; sleep 60 & wait") for _ in range(2))
        assert process.pid == 1000
        act(server, process)
        record = server.ended(process)
        assert record.reason == reason
        assert "ZeroDivisionError: on purpose at sitecustomize.py:" in record.evidence
        assert "a defect of the supervisor exception=ZeroDivisionError: on purpose at" in supervisor.log
        eventually(lambda: not alive(process.os_pid), "its end")
        other.write(b"goes on\n")
        server.said(other, b"goes on")
        again = supervisor.serve_again()
        assert again.processes[1000].exit == record
        again.ask("forget", again.processes[1000])
        assert again.ended(again.sh("exit 3")).code == 3
        eventually(
            lambda: not [name for name in supervisor.files() if name.startswith("1000")], "its removal"
        )


def test_a_defect_in_a_start_refuses_it(tmp_path: Path) -> None:
    with broken(tmp_path, "process Process _on_verdict") as supervisor:
        server = supervisor.serve()
        with pytest.raises(Refused) as refused:
            server.sh("sleep 60")
        assert refused.value.body["code"] == "internal"
        assert server.ended(server.sh("exit 3")).code == 3
        assert supervisor.files() == ["1001.json", "1001.log"]


def test_a_record_that_cannot_be_told_does_not_keep_a_server_from_the_others(tmp_path: Path) -> None:
    with broken(tmp_path, "process Process record") as supervisor:
        server = supervisor.serve()
        with pytest.raises(AssertionError):
            server.answer(server.request(("/bin/sleep", "60")), 2)
        other = server.sh("cat")
        again = supervisor.serve_again()
        assert list(again.processes) == [other.pid]
        assert supervisor.log.count("Traceback") == 0


# The loop


def test_what_a_callback_raises_is_told_to_its_owner_and_everything_goes_on() -> None:
    """A descriptor that stays ready is not called for without end."""
    nobodys: list[Exception] = []
    owners: list[Exception] = []
    calls: list[str] = []
    loop = Loop(nobodys.append)
    owned = loop.owned(owners.append)
    pipes = [os.pipe() for _ in range(3)]

    def fail(name: str) -> None:
        calls.append(name)
        raise ZeroDivisionError(name)

    loop.watch(pipes[0][0], lambda: fail("nobody's"))
    owned.watch(pipes[1][0], lambda: fail("owned"))
    owned.watch(pipes[2][0], lambda: fail("flood"))
    owned.floods.set(pipes[2][0], True)
    owned.after(0.01, lambda: fail("timer"))
    loop.after(0.01, lambda: fail("nobody's timer"))

    def last() -> None:
        loop.stop()
        fail("signal")

    loop.on_signal(signal.SIGUSR1, last)
    loop.after(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    for _reader, writer in pipes:
        os.write(writer, b"x")
    try:
        loop.run()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        loop.close()
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)
    assert sorted(calls) == ["flood", "nobody's", "nobody's timer", "owned", "signal", "timer"]
    assert sorted(map(str, owners)) == ["flood", "owned", "timer"]
    assert sorted(map(str, nobodys)) == ["nobody's", "nobody's timer", "signal"]


def test_lines_of_one_message_are_bounded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, now = Log(False), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for number in range(100):
        log.write("error", "again", number=number)
    log.write("error", "other")
    now += 60
    log.write("error", "again", number=100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LINES_A_MINUTE + 2
    assert lines[-1].endswith("again number=100 unreported=80")


def test_the_place_of_an_error_is_one_line() -> None:
    def deep(levels: int) -> Any:
        return deep(levels - 1) if levels else 1 // 0

    with pytest.raises(ZeroDivisionError) as raised:
        deep(3)
    assert place(raised.value).startswith("ZeroDivisionError: ")
    assert " at test_defects.py:" in place(raised.value)
    assert place(ValueError("a\nb" * 1000)).count("\n") == 0
    assert len(place(ValueError("x" * 1000))) < 200
