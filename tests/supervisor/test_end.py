"""Ends of processes: exit records, escalation, and that a whole tree is gone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.supervisor.harness import Seen, Server, Supervised, alive, eventually

#: Short enough for a test, long enough to see what comes before SIGKILL.
QUICK = ((300, int(signal.SIGKILL)),)
HANG_UP_FIRST = ((50, int(signal.SIGHUP)), (5000, int(signal.SIGKILL)))


def pids_in(process: Seen) -> list[int]:
    """The OS pids that a test's program has written, one a line."""
    return [int(word) for word in process.output().split() if word.isdigit()]


def test_every_byte_is_there_before_the_exit(server: Server) -> None:
    size = 1 << 20
    process = server.python(f"import os; os.write(1, b'x' * {size})", retention_bytes=size)
    ended = server.ended(process)
    assert ended.bytes == process.log.head == size
    assert process.output() == b"x" * size


def test_every_byte_of_a_terminal_is_there_before_the_exit(server: Server) -> None:
    process = server.sh("seq 100000", pty=(80, 24), retention_bytes=1 << 20)
    server.ended(process)
    assert process.output() == b"".join(b"%d\r\n" % number for number in range(1, 100001))


def test_what_a_job_that_is_ended_writes_last_is_there(server: Server) -> None:
    job = "trap 'echo bye; exit' HUP TERM; echo up; while :; do sleep 0.02; done"
    process = server.sh(f"({job}) & read line; exit 7")
    server.said(process, b"up")
    process.write(b"\n")
    assert server.ended(process).code == 7
    assert process.output().endswith(b"bye\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1, signal.SIGXCPU])
def test_death_by_a_signal_is_told_by_name(server: Server, number: signal.Signals) -> None:
    ended = server.ended(server.sh(f"kill -{int(number)} $$; sleep 5"))
    assert (ended.code, ended.signal, ended.reason) == (None, number.name, "signal")


@pytest.mark.parametrize(("number", "name"), [(34, "SIGRTMIN"), (40, "SIGRTMIN+6"), (63, "SIGRTMIN+29")])
def test_death_by_a_realtime_signal_has_a_name_too(server: Server, number: int, name: str) -> None:
    """Only the first and the last of them are in Python's enumeration: a program that sent itself another one
    took the supervisor down, and everything with it."""
    process = server.python(f"import os; os.kill(os.getpid(), {number})")
    ended = server.ended(process)
    assert (ended.code, ended.signal, ended.reason) == (None, name, "signal")


def test_kill_with_a_realtime_signal(server: Server) -> None:
    process = server.sh("echo up; sleep 30")
    server.said(process, b"up")
    server.kill(process, 41)
    ended = server.ended(process)
    assert (ended.signal, ended.reason) == ("SIGRTMIN+7", "killed")
    assert "SIGRTMIN+7 was sent" in ended.evidence


def test_figures_of_the_exit_record(server: Server) -> None:
    script = "x = b'x' * (64 << 20)\nimport time\nwhile time.process_time() < 0.2: pass\nprint('done')"
    before_ms = time.time() * 1000
    process = server.python(script)
    ended = server.ended(process)
    assert ended.cpu_ms is not None
    assert ended.runtime_ms is not None
    assert 200 <= ended.cpu_ms <= ended.runtime_ms + 200
    assert ended.max_rss_bytes is not None
    assert 64 << 20 <= ended.max_rss_bytes <= 128 << 20
    assert ended.bytes == 5
    assert before_ms - 1 <= process.record.start_time_ms <= ended.end_time_ms <= time.time() * 1000 + 1
    assert ended.evidence == "wait status 0x0000"


def test_memory_that_may_be_the_supervisors_is_not_told_as_the_processs(server: Server) -> None:
    """The kernel keeps the peak over exec, so a small program seems to have used what its parent had."""
    assert server.ended(server.spawn("true")).max_rss_bytes is None


# Escalation


def test_term_is_enough_for_most(server: Server) -> None:
    process = server.sh("echo up; sleep 30", escalation=QUICK)
    server.said(process, b"up")
    server.kill(process, signal.SIGTERM)
    ended = server.ended(process)
    assert (ended.signal, ended.reason) == ("SIGTERM", "killed")
    assert "SIGTERM was sent (killed)" in ended.evidence


def test_a_program_may_end_in_order(server: Server) -> None:
    process = server.python(
        "import signal,sys,time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        "print('up', flush=True)\n"
        "time.sleep(30)"
    )
    server.said(process, b"up")
    server.kill(process, signal.SIGTERM, "idle")
    ended = server.ended(process)
    assert (ended.code, ended.signal, ended.reason) == (9, None, "idle")


def test_one_that_ignores_everything_is_killed(server: Server) -> None:
    process = server.sh("trap '' TERM HUP INT QUIT; echo up; while :; do sleep 0.05; done", escalation=QUICK)
    server.said(process, b"up")
    server.kill(process, signal.SIGTERM)
    ended = server.ended(process)
    assert (ended.signal, ended.reason) == ("SIGKILL", "killed")
    assert (ended.runtime_ms or 0) >= 300


def test_a_stopped_process_ends(server: Server) -> None:
    process = server.sh("echo up; kill -STOP $$", escalation=((10_000, int(signal.SIGKILL)),))
    server.said(process, b"up")
    stat = Path(f"/proc/{process.os_pid}/stat")
    server.until(lambda: b") T " in stat.read_bytes(), "that it has stopped")
    server.kill(process, signal.SIGTERM)
    assert server.ended(process).signal == "SIGTERM"


def test_an_interactive_bash_is_hung_up(server: Server) -> None:
    process = server.spawn("bash", "--norc", "-i", pty=(80, 24), escalation=HANG_UP_FIRST)
    process.write(b"echo $((6*7))\n")
    server.said(process, b"42")
    server.kill(process, signal.SIGTERM)
    ended = server.ended(process)
    assert (ended.signal, ended.reason) == ("SIGHUP", "killed")


def test_the_foreground_job_of_a_terminal_ends_as_well(server: Server) -> None:
    process = server.spawn("bash", "--norc", "-i", pty=(80, 24), escalation=HANG_UP_FIRST)
    process.write(b"sleep 123 & sleep 321\n")
    children = Path(f"/proc/{process.os_pid}/task/{process.os_pid}/children")
    server.until(lambda: len(children.read_text().split()) == 2, "both jobs")
    jobs = [int(word) for word in children.read_text().split()]
    server.kill(process, signal.SIGTERM)
    server.ended(process)
    assert not any(map(alive, jobs))


def test_interrupt_reaches_the_foreground_job_only(server: Server) -> None:
    process = server.spawn("bash", "--norc", "-i", pty=(80, 24))
    process.write(b"sleep 321\n")
    children = Path(f"/proc/{process.os_pid}/task/{process.os_pid}/children")
    server.until(lambda: children.read_text().split(), "the job")
    job = children.read_text().split()[0]
    # Before that it is still a bash that looks after signals itself, or not in the foreground.
    server.until(lambda: Path(f"/proc/{job}/comm").read_text() == "sleep\n", "its program")
    server.until(lambda: os.tcgetpgrp(process.input_fd) == int(job), "the foreground")
    server.kill(process, signal.SIGINT, escalate=False)
    server.until(lambda: not children.read_text().split(), "its end")
    # A shell whose job was interrupted may throw away what is typed before its prompt.
    server.until(lambda: process.output().endswith((b"# ", b"$ ")), "the prompt")
    process.write(b"echo status=$?\n")
    server.said(process, b"status=130")
    # Between a command and its prompt, bash takes note of a signal and looks at it after the next line only.
    server.until(lambda: process.output().endswith((b"# ", b"$ ")), "the next prompt")
    server.kill(process, signal.SIGHUP)
    assert server.ended(process).signal == "SIGHUP"


def test_a_signal_without_escalation_is_all_there_is(server: Server) -> None:
    process = server.sh("trap 'echo one' USR1; echo up; while :; do sleep 0.02; done", escalation=QUICK)
    server.said(process, b"up")
    server.kill(process, signal.SIGUSR1, escalate=False)
    server.said(process, b"one")
    server.kill(process, signal.SIGUSR1, escalate=False)
    server.until(lambda: process.output().count(b"one") == 2, "the second signal")
    server.kill(process, signal.SIGKILL)
    assert server.ended(process).signal == "SIGKILL"


def test_the_first_reason_stays(server: Server) -> None:
    process = server.sh("trap '' TERM; echo up; while :; do sleep 0.02; done", escalation=QUICK)
    server.said(process, b"up")
    server.kill(process, signal.SIGTERM, "idle")
    server.kill(process, signal.SIGTERM, "killed")
    assert server.ended(process).reason == "idle"


def test_a_time_out_ends_it_and_says_so(server: Server) -> None:
    process = server.sh("trap '' TERM; while :; do sleep 0.02; done", timeout_ms=100, escalation=QUICK)
    ended = server.ended(process)
    assert (ended.signal, ended.reason) == ("SIGKILL", "timeout")
    assert ended.runtime_ms is not None
    assert 400 <= (ended.runtime_ms or 0) < 5000


def test_killing_what_has_ended_or_never_was_is_nothing(server: Server) -> None:
    process = server.sh("exit 2")
    assert server.ended(process).code == 2
    server.kill(process, signal.SIGKILL)
    server.ask("close_stdin", process)
    server.ask("size", process, columns=1, rows=1)
    process.pid = 99999
    server.kill(process, signal.SIGKILL)
    server.ask("forget", process)
    assert server.ended(server.sh("exit 0")).reason == "exit"
    process.pid = 1000
    assert process.exit is not None
    assert process.exit.reason == "exit"


# Trees

DAEMON = (
    "import os,signal,sys,time\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "if os.fork(): os._exit(0)\n"
    "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
    "print(os.getpid(), flush=True)\n"
    "time.sleep(60)\n"
)


def test_a_daemon_dies_with_the_process_that_made_it(server: Server) -> None:
    script = f"import subprocess,sys,time; subprocess.run([sys.executable, '-c', {DAEMON!r}]); time.sleep(60)"
    process = server.python(script, escalation=QUICK)
    server.until(lambda: pids_in(process), "the daemon's pid")
    server.kill(process, signal.SIGKILL)
    server.ended(process)
    assert not any(map(alive, pids_in(process)))


def test_a_daemon_that_outlives_its_maker_is_ended_before_the_exit_is_told(server: Server) -> None:
    process = server.python(
        "import subprocess,sys\n"
        f"maker = subprocess.Popen([sys.executable, '-c', {DAEMON!r}], stdout=subprocess.PIPE)\n"
        "print(int(maker.stdout.readline()), flush=True)\n"
        "maker.wait()\n"
        "sys.exit(8)\n"
    )
    ended = server.ended(process)
    assert (ended.code, ended.reason) == (8, "exit")
    assert pids_in(process)
    assert not any(map(alive, pids_in(process)))


@pytest.mark.parametrize("pty", [None, (80, 24)])
def test_a_background_job_holds_the_exit_up_only_until_it_is_ended(
    server: Server, pty: tuple[int, int] | None
) -> None:
    process = server.sh("sleep 60 & echo $!; exit 1", pty=pty)
    ended = server.ended(process)
    assert ended.code == 1
    assert pids_in(process)
    assert not any(map(alive, pids_in(process)))


def test_a_leftover_of_one_process_does_not_hold_up_the_exit_of_another(server: Server) -> None:
    """A stream of processes that each leave something behind once kept every exit from being told: never was
    the other one first. On a busy machine it may be late for once."""
    assert any(_ends_before_leftovers_do(server) for _ in range(10))


def _ends_before_leftovers_do(server: Server) -> bool:
    stubborn = "(trap '' HUP TERM; echo up; while :; do sleep 0.3; done) & read line; exit 0"
    leaving = [server.sh(stubborn) for _ in range(3)]
    quick = server.sh("echo up; read line; exit 0")
    for process in (*leaving, quick):
        server.said(process, b"up")
    for process in leaving:
        process.write(b"\n")
    for process in leaving:
        eventually(lambda: not Path(f"/proc/{process.os_pid}").exists(), "its end")  # noqa: B023
    settled = time.monotonic() + 0.1
    server.until(lambda: time.monotonic() > settled, "that nothing of them is new")
    quick.write(b"\n")
    assert server.ended(quick).code == 0
    first = [process.exit for process in leaving] == [None] * 3
    for process in leaving:
        assert server.ended(process).code == 0
    return first


#: Four that fork without end: however slow the machine is, somebody forks when it is killed. Each has 25
#: children at a time, and nobody outlives a test that failed for long.
BOMB = (
    "import os,signal\n"
    "os.fork(); os.fork()\n"
    "signal.alarm(120)\n"
    "children = []\n"
    "while True:\n"
    "    pid = os.fork()\n"
    "    if not pid: signal.alarm(120); signal.pause()\n"
    "    children.append(pid)\n"
    "    if len(children) > 25:\n"
    "        os.kill(children[0], 9); os.waitpid(children.pop(0), 0)\n"
)


def tagged(tag: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if tag.encode() in (entry / "environ").read_bytes() and alive(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_a_fork_bomb_is_killed_while_it_forks(server: Server) -> None:
    tag = f"BOMB_{os.getpid()}_{time.monotonic_ns()}"
    process = server.python(BOMB, env={tag: "1"})
    server.until(lambda: len(tagged(tag)) > 20, "that it forks")
    server.kill(process, signal.SIGKILL)
    assert server.ended(process).signal == "SIGKILL"
    assert tagged(tag) == []


RUNNER = (
    "import os,signal,time\n"
    "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
    # Long after whoever waits for its end has given up.
    "end = time.monotonic() + 60\n"
    "print('up', flush=True)\n"
    "if os.fork(): os._exit(3)\n"
    "while time.monotonic() < end:\n"
    "    if os.fork(): os._exit(0)\n"
)


def test_a_process_that_runs_from_pid_to_pid_is_caught(supervisor: Supervised, server: Server) -> None:
    """Each of its lives is new, so none ever was old enough to be killed."""
    tag = f"RUNNER_{os.getpid()}_{time.monotonic_ns()}"
    process = server.python(RUNNER, env={tag: "1"})
    ended = server.ended(process)
    assert ended.code == 3
    assert tagged(tag) == []


def test_a_tree_that_is_killed_while_it_runs_from_pid_to_pid(server: Server) -> None:
    tag = f"RUNNER_{os.getpid()}_{time.monotonic_ns()}"
    process = server.python(RUNNER.replace("os._exit(3)", "time.sleep(60)"), env={tag: "1"})
    server.said(process, b"up")
    server.kill(process, signal.SIGKILL)
    assert server.ended(process).signal == "SIGKILL"
    assert tagged(tag) == []


def test_a_terminal_that_a_program_lets_go_of_is_not_taken_from_it(server: Server) -> None:
    """Scripts that redirect all their output have no terminal open for a while; to close its other end hung
    them up."""
    process = server.sh(
        "exec >/dev/null 2>&1 </dev/null; sleep 0.3; echo back >/dev/tty; exit 5", pty=(80, 24)
    )
    ended = server.ended(process)
    assert (ended.code, ended.signal) == (5, None)
    assert process.output() == b"back\r\n"


def test_output_that_a_stranger_holds_open_does_not_hold_the_exit_up(server: Server, tmp_path: Path) -> None:
    process = server.sh("echo up; read line; exit 2")
    server.said(process, b"up")
    with open(f"/proc/{process.os_pid}/fd/1", "wb", buffering=0) as stranger:
        process.write(b"\n")
        ended = server.ended(process)
        assert ended.code == 2
        eventually(lambda: _broken(stranger.fileno()), "that the pipe is closed")


def _broken(fd: int) -> bool:
    try:
        os.write(fd, b"x")
    except BrokenPipeError:
        return True
    return False


# The end of all


def test_term_ends_everything_in_order(supervisor: Supervised, server: Server) -> None:
    tidy = server.sh("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done")
    stubborn = server.sh("trap '' TERM HUP; echo up; while :; do sleep 0.02; done", escalation=QUICK)
    for process in (tidy, stubborn):
        server.said(process, b"up")
    supervisor.popen.send_signal(signal.SIGTERM)
    assert server.ended(tidy).code == 0
    assert tidy.output().endswith(b"bye\n")
    assert server.ended(stubborn).signal == "SIGKILL"
    server.until(lambda: server.gone, "the end of the server")
    assert supervisor.wait() == 0
    assert not supervisor.marker.exists()


def test_nothing_is_started_while_it_stops(supervisor: Supervised, server: Server) -> None:
    process = server.sh("trap '' TERM; echo up; read line", escalation=((1500, int(signal.SIGKILL)),))
    server.said(process, b"up")
    supervisor.popen.send_signal(signal.SIGTERM)
    eventually(lambda: "stopping" in supervisor.log, "that it stops")
    with pytest.raises(AssertionError, match="stopping"):
        _refusal(server)
    process.write(b"\n")
    assert supervisor.wait() == 0


def _refusal(server: Server) -> None:
    request = server.request(("/bin/true",))
    body = server.event("refused", request=request)
    assert (body["code"], body["retry"]) == ("unavailable", True)
    raise AssertionError(body["message"])


def test_a_second_term_ends_it_at_once(supervisor: Supervised, server: Server) -> None:
    process = server.sh(
        "trap '' TERM; echo up; while :; do sleep 0.02; done", escalation=((60_000, int(signal.SIGKILL)),)
    )
    server.said(process, b"up")
    supervisor.popen.send_signal(signal.SIGTERM)
    eventually(lambda: "stopping" in supervisor.log, "that it stops")
    supervisor.popen.send_signal(signal.SIGTERM)
    assert server.ended(process).signal == "SIGKILL"
    assert supervisor.wait() == 0


def test_stopping_does_not_depend_on_the_server(supervisor: Supervised, server: Server) -> None:
    """A service manager signals all of a unit's processes: the server was gone first, and the programs were
    killed without the time that they are promised."""
    done = supervisor.state_dir / "done"
    process = server.python(
        "import signal,sys,time\n"
        f"def end(*_): time.sleep(0.5); open({str(done)!r}, 'w'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    server.said(process, b"up")
    supervisor.popen.send_signal(signal.SIGTERM)
    os.kill(server.os_pid, signal.SIGKILL)
    assert supervisor.wait() == 0
    assert done.exists()


def test_when_the_supervisor_is_killed_nothing_is_left(supervisor: Supervised, server: Server) -> None:
    process = server.sh("echo up; sleep 60")
    server.said(process, b"up")
    supervisor.popen.kill()
    supervisor.wait()
    eventually(lambda: not alive(process.os_pid), "the end of the process")
    eventually(lambda: not alive(server.os_pid), "the end of the server")
