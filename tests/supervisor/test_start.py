"""Starting programs: what they are given, and what becomes of those that cannot be started."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from pathlib import Path

import pytest

from mhnos_runtime.launch import STDERR, STDOUT, Choice, Wish
from tests.supervisor.harness import Refused, Seen, Server, Supervised, alive, supervised


class Quiet:
    """Nothing is left of a process that was never started: no child, no log, no descriptor.

    Children and sockets are counted: the child that waits for the next plan is another one each time.
    """

    def __init__(self, supervisor: Supervised) -> None:
        self.supervisor = supervisor
        self.before = self.now()

    def now(self) -> tuple[int, list[str], list[str]]:
        children = Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children").read_text()
        descriptors = (re.sub(r"socket:.*", "socket", each) for each in self.supervisor.descriptors())
        return len(children.split()), self.supervisor.files(), sorted(descriptors)

    def again(self, server: Server) -> None:
        server.until(lambda: self.now() == self.before, f"{self.before} again")


def test_pipes_keep_the_streams_apart(server: Server) -> None:
    process = server.sh("echo out; echo err >&2; exit 3")
    ended = server.ended(process)
    assert process.output(STDOUT) == b"out\n"
    assert process.output(STDERR) == b"err\n"
    assert (ended.code, ended.signal, ended.reason, ended.bytes) == (3, None, "exit", 8)
    assert process.record.pid == 1000
    assert process.record.pty is None


def test_terminal_has_its_size_and_is_the_controlling_one(server: Server) -> None:
    process = server.sh("stty size; tty; stty -a | grep -o iutf8; echo >/dev/tty", pty=(123, 45))
    ended = server.ended(process)
    lines = process.output().split(b"\r\n")
    assert lines[0] == b"45 123"
    assert lines[1].startswith(b"/dev/pts/")
    assert lines[2] == b"iutf8"
    assert (ended.code, process.record.pty) == (0, (123, 45))


def test_child_gets_what_the_plan_says_and_nothing_else(server: Server, tmp_path: Path) -> None:
    script = (
        "import os,resource,signal\n"
        "print(sorted(os.environ.items()), os.getcwd(), os.umask(0), os.getsid(0) == os.getpid())\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:-1])\n"
        "print([signal.getsignal(n) for n in (1, 2, 13, 15, 17)], signal.pthread_sigmask(0, []))\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    process = server.python(
        script,
        cwd=tmp_path,
        env={"A": "b", "LANG": "C.UTF-8", "Ü": "ß\n"},
        choice=Choice(Wish(open_files=200)),
    )
    server.ended(process)
    out = process.output().decode().splitlines()
    assert out[0] == (f"[('A', 'b'), ('LANG', 'C.UTF-8'), ('Ü', 'ß\\n')] {tmp_path} {0o022} True"), (
        process.output()
    )
    assert out[1] == "['0', '1', '2']"
    assert out[2].endswith("set()")
    assert out[3] == "(0, 0) (200, 200)"


def failing(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    plain = tmp_path / "plain"
    plain.write_text("x")
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF garbage")
    binary.chmod(0o755)
    return {
        "missing": (tmp_path / "missing", "not-found"),
        "below a file": (plain / "x", "not-found"),
        "not executable": (plain, "not-executable"),
        "a folder": (tmp_path, "not-executable"),
        "not a program": (binary, "not-executable"),
        "bad interpreter": (script, "not-found"),
    }


@pytest.mark.parametrize(
    "case", ["missing", "below a file", "not executable", "a folder", "not a program", "bad interpreter"]
)
@pytest.mark.parametrize("pty", [None, (80, 24)])
def test_what_cannot_be_executed_is_refused_and_leaves_nothing(
    supervisor: Supervised, server: Server, tmp_path: Path, case: str, pty: tuple[int, int] | None
) -> None:
    path, code = failing(tmp_path)[case]
    quiet = Quiet(supervisor)
    with pytest.raises(Refused) as refused:
        server.spawn(str(path), pty=pty)
    assert refused.value.body["code"] == code
    assert str(path) in refused.value.body["message"]
    assert refused.value.body["hint"]
    quiet.again(server)
    # A process that never was is not counted, and the supervisor goes on.
    assert server.ended(server.sh("exit 0")).code == 0


def test_an_interpreter_that_is_missing_is_named_as_the_reason(server: Server, tmp_path: Path) -> None:
    path, _code = failing(tmp_path)["bad interpreter"]
    with pytest.raises(Refused, match="interpreter"):
        server.spawn(str(path))


def test_an_argument_that_the_kernel_does_not_take_is_refused(supervisor: Supervised, server: Server) -> None:
    quiet = Quiet(supervisor)
    with pytest.raises(Refused, match="Argument list too long") as refused:
        server.spawn("true", "x" * (140 << 10))
    assert refused.value.body["code"] == "start-failed"
    quiet.again(server)


def test_a_limit_that_cannot_be_set_is_refused(supervisor: Supervised, server: Server) -> None:
    quiet = Quiet(supervisor)
    with pytest.raises(Refused, match="file_bytes"):
        server.spawn("true", choice=Choice(Wish(file_bytes=1 << 70)))
    quiet.again(server)


def test_a_folder_that_is_removed_meanwhile_harms_nobody(
    supervisor: Supervised, server: Server, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.kill(supervisor.pid, signal.SIGSTOP)
    request = server.request(("/bin/sh", "-c", "exit 5"), cwd=gone)
    gone.rmdir()
    os.kill(supervisor.pid, signal.SIGCONT)
    assert server.ended(server.answer(request)).code == 5


def test_many_failures_and_starts_at_once_are_told_apart(server: Server) -> None:
    """An event of a descriptor that was closed in the same turn must not reach the one that took its number:
    the supervisor once read a verdict that was not there yet, and all processes went with it."""
    requests = [
        server.request(("/no/such/program",) if number % 3 else ("/bin/sh", "-c", f"exit {number}"))
        for number in range(150)
    ]
    codes = []
    for number, request in enumerate(requests):
        if number % 3:
            with pytest.raises(Refused):
                server.answer(request)
        else:
            codes.append(server.ended(server.answer(request)).code)
    assert codes == list(range(0, 150, 3))


def test_pids_are_never_used_again(server: Server) -> None:
    first = server.sh("exit 0")
    server.ended(first)
    server.ask("forget", first)
    assert server.sh("exit 0").pid == first.pid + 1


def test_forgetting_gives_everything_back(supervisor: Supervised, server: Server) -> None:
    quiet = Quiet(supervisor)
    processes = [server.sh("echo hi", pty=pty) for pty in (None, (80, 24), None)]
    for process in processes:
        server.ended(process)
        server.ask("forget", process)
    quiet.again(server)


def test_a_living_process_is_not_forgotten(supervisor: Supervised, server: Server) -> None:
    process = server.sh("read line; exit 4")
    server.ask("forget", process)
    server.sh("exit 0")
    process.write(b"\n")
    assert server.ended(process).code == 4
    assert "1000.log" in supervisor.files()


def test_closing_stdin_is_the_end_of_input(server: Server) -> None:
    process = server.sh("cat; echo end")
    process.write(b"line")
    os.close(process.input_fd)
    process.input_fd = -1
    server.ask("close_stdin", process)
    server.ended(process)
    assert process.output() == b"lineend\n"
    assert process.record.stdin_open


def with_few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))


@pytest.mark.parametrize("pty", [None, (80, 24)])
def test_no_descriptors_left_refuses_and_recovers(tmp_path: Path, pty: tuple[int, int] | None) -> None:
    """The supervisor once died of its own EMFILE, in one of four places, and took all processes with it."""
    with supervised(tmp_path, preexec_fn=with_few_descriptors) as running:
        server = running.serve()
        living: list[Seen] = []
        with pytest.raises(Refused) as refused:
            living.extend(server.sh("read line", pty=pty) for _ in range(30))
        assert refused.value.body["code"] == "start-failed"
        assert refused.value.body["retry"]
        assert "ulimit -n" in refused.value.body["hint"]
        for _ in range(3):
            # A start needs fewer descriptors while a child waits for it: the last ones may do for that.
            with contextlib.suppress(Refused):
                server.ended(server.sh("exit 0", pty=pty))
        started = [process for process in server.processes.values() if process.exit is None]
        assert len(started) >= 3
        assert all(alive(process.os_pid) for process in started)
        for process in started[-3:]:
            server.kill(process, signal.SIGKILL)
            server.ended(process)
            server.ask("forget", process)
        assert server.ended(server.sh("exit 6", pty=pty)).code == 6


def test_no_room_for_the_log_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    limit = (1 << 18, 1 << 18)
    with supervised(tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)) as running:
        server = running.serve()
        with pytest.raises(Refused) as refused:
            server.sh("exit 0", retention_bytes=1 << 20)
        assert "output log" in refused.value.body["message"]
        assert running.files() == []
        assert server.ended(server.sh("exit 0", retention_bytes=0)).code == 0
