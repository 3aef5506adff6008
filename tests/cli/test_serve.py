"""`serve` and `stop-server` as a person uses them: a folder, the background, the end, and what errors say."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime import title
from mhnos_runtime.cli import local
from tests.cli.console import Console

pytestmark = pytest.mark.timeout(90)
SCRIPT = Path(sys.executable).with_name("mhnos-runtime")
#: So that root's processes can use the temporary folder of a test, and no sandbox is needed for it.
LEVEL = ("--sandbox", "none", "--port", "0", *(("--allow-root",) if os.geteuid() == 0 else ()))


class Desk:
    """A person's terminal: a project's folder, and a state directory of their own."""

    def __init__(self, folder: Path) -> None:
        self.project, self.state = folder / "my project", folder / "state"
        self.program: tuple[str, ...] = (sys.executable, "-m", "mhnos_runtime")
        self.project.mkdir()

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MHNOS_")}
        return subprocess.run(
            [*self.program, *arguments],
            env={**kept, "MHNOS_STATE_DIR": str(self.state), **variables},
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def serve(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("serve", *LEVEL, *arguments, **variables)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    if (found := local.find(made.state)) is not None:
        os.kill(found.os_pid, signal.SIGKILL)


def lines(text: str) -> dict[str, str]:
    """The greeting: what stands after each of its words."""
    return {line[:12].strip(): line[13:] for line in text.splitlines() if line.startswith("  ")}


def test_in_the_background_it_serves_a_folder_until_it_is_stopped(desk: Desk) -> None:
    started = desk.serve("-d", ".")
    assert (started.returncode, started.stderr) == (0, "")
    told = lines(started.stdout)
    assert told["workspace"] == str(desk.project)
    assert told["log"] == str(desk.state / "runtime.log")
    found = local.require(desk.state)
    assert (told["pid"].split()[0], told["listening"]) == (str(found.os_pid), found.url)
    assert os.getsid(found.os_pid) == found.os_pid  # the end of the terminal is not its end
    assert (desk.state / "runtime.log").stat().st_mode & 0o777 == 0o600
    # It answers as soon as the command has returned.
    assert local.health_of(desk.state)["status"] == "ok"
    assert desk.run("run", "shell", "pwd").stdout == f"{desk.project}\n"
    pid = desk.run("run", "-d", "shell", "sleep 1000").stdout.strip()

    stopped = desk.run("stop-server")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert stopped.stdout.splitlines() == [
        f"stopped the runtime at {found.url} (pid {found.os_pid})",
        f"ended {pid} shell sleep 1000",
    ]
    assert not title.has(found.os_pid, title.SUPERVISOR)
    assert local.find(desk.state) is None
    assert '"stopping"' in (desk.state / "runtime.log").read_text()


def test_what_the_greeting_says_to_try_works(desk: Desk) -> None:
    """The command was not found outside of the environment, and missed a state directory of one's own."""
    told = lines(desk.serve("-d", str(desk.project)).stdout)
    assert told["try"].endswith("mhnos-runtime run -it shell")
    command = told["try"].replace("-it shell", "shell 'echo found'")
    done = subprocess.run(
        ["sh", "-c", command], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("found\n", "")


def test_the_command_is_short_where_it_is_on_path(desk: Desk) -> None:
    on_path = f"{SCRIPT.parent}:{os.environ['PATH']}"
    home = {"HOME": str(desk.project.parent), "XDG_STATE_HOME": str(desk.state.parent)}
    state = desk.state.parent / "mhnos-runtime"
    started = desk.run("serve", *LEVEL, "-d", ".", PATH=on_path, MHNOS_STATE_DIR="", **home)
    try:
        assert lines(started.stdout)["try"] == "mhnos-runtime run -it shell"
    finally:
        assert desk.run("stop-server", "--state-dir", str(state)).returncode == 0


def test_the_path_is_shown_as_it_was_typed(desk: Desk) -> None:
    (desk.project / "bin").symlink_to(SCRIPT.parent)
    desk.program = ("bin/mhnos-runtime",)
    started = desk.serve("-d", ".")
    assert lines(started.stdout)["try"].endswith(" bin/mhnos-runtime run -it shell")


def test_a_log_never_shows_a_token_that_a_terminal_would(desk: Desk) -> None:
    started = desk.serve("-d", ".")
    token = (desk.state / "token").read_text().strip()
    assert token not in started.stdout
    assert token not in (desk.state / "runtime.log").read_text()


async def test_a_terminal_is_shown_the_token_and_may_close(desk: Desk) -> None:
    env = {"MHNOS_STATE_DIR": str(desk.state), "MHNOS_WORKSPACE": str(desk.project)}
    async with Console("serve", "-d", *LEVEL, cols=400, env=env) as console:
        assert await console.exit_code() == 0
        await console.until(b"runtime.log")
        assert (desk.state / "token").read_text().strip().encode() in console.seen
    reloaded = await asyncio.to_thread(desk.run, "reload")  # SIGHUP does not mean that the terminal is gone
    assert (reloaded.returncode, reloaded.stderr) == (0, "")


def test_a_second_start_names_the_first(desk: Desk) -> None:
    assert desk.serve("-d", ".").returncode == 0
    pid = local.require(desk.state).os_pid
    for detach in ((), ("-d",)):
        again = desk.serve(*detach, ".")
        assert again.returncode == 1
        assert f"another runtime is using {desk.state} (pid {pid}, " in again.stderr
        assert "stop-server" in again.stderr
        assert again.stdout == ""
    assert local.require(desk.state).os_pid == pid


def test_a_taken_port_names_who_has_it(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = desk.serve("-d", ".", "--port", port)
    assert refused.returncode == 1
    assert f"port {port}: Address already in use by process {os.getpid()} (" in refused.stderr
    assert "--port" in refused.stderr
    assert local.find(desk.state) is None


def test_what_keeps_the_server_from_starting_is_shown_from_its_log(desk: Desk) -> None:
    """The listening sockets are there by then, so only an answer shows that it serves."""
    broken = desk.state.parent / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys, os\nif 'mhnos_runtime.supervisor' in sys.orig_argv: sys.exit('no supervisor today')\n"
    )
    refused = desk.serve("-d", ".", PYTHONPATH=str(broken))
    assert refused.returncode == 1
    assert "the runtime ended while it started:" in refused.stderr
    assert "no supervisor today" in refused.stderr
    assert f"the log is {desk.state}/runtime.log" in refused.stderr


@pytest.mark.parametrize("detach", [(), ("-d",)])
@pytest.mark.parametrize(
    ("folder", "message", "hint"),
    [
        ("nosuch", "{project}/nosuch (by argument FOLDER) does not exist", "mkdir -p"),
        ("file", "{project}/file (by argument FOLDER) is not a folder", "another folder"),
    ],
)
def test_a_folder_that_cannot_be_one(
    desk: Desk, detach: tuple[str, ...], folder: str, message: str, hint: str
) -> None:
    (desk.project / "file").touch()
    refused = desk.serve(*detach, folder)
    assert refused.returncode == 1
    first, second = refused.stderr.splitlines()
    assert first == f"mhnos-runtime: workspace {message.format(project=desk.project)}"
    assert hint in second


def test_the_folder_beats_the_variable_and_contradicts_the_flag(desk: Desk, tmp_path: Path) -> None:
    contradicted = desk.serve(".", "--workspace", str(tmp_path))
    assert contradicted.returncode == 2
    assert "give one of them" in contradicted.stderr
    started = desk.serve("-d", ".", "--workspace", str(desk.project), MHNOS_WORKSPACE=str(tmp_path))
    assert lines(started.stdout)["workspace"] == str(desk.project)


def test_stopping_none_says_what_to_do(desk: Desk) -> None:
    for verb in ("stop-server", "health", "reload"):
        refused = desk.run(verb)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.splitlines() == [
            f"mhnos-runtime: no runtime uses {desk.state}",
            "hint: `mhnos-runtime serve` starts one; --state-dir or MHNOS_STATE_DIR names another",
        ]


def test_a_crash_leaves_no_runtime_behind(desk: Desk) -> None:
    """The file of a killed runtime names a pid that may be another's by now."""
    desk.serve("-d", ".")
    file = desk.state / local.FILE
    text = file.read_text().replace(f'"pid": {local.require(desk.state).os_pid}', f'"pid": {os.getpid()}')
    assert desk.run("stop-server").returncode == 0
    file.write_text(text)
    refused = desk.run("stop-server")
    assert (refused.returncode, "no runtime uses" in refused.stderr) == (1, True)
    assert "no runtime uses" in desk.run("health").stderr


def test_a_runtime_that_does_not_answer_is_named(desk: Desk) -> None:
    desk.serve("-d", ".")
    found = local.require(desk.state)
    (server,) = [
        int(child)
        for child in Path(f"/proc/{found.os_pid}/task/{found.os_pid}/children").read_text().split()
        if title.has(int(child), title.SERVER)
    ]
    os.kill(found.os_pid, signal.SIGSTOP)  # starts no other server
    os.kill(server, signal.SIGKILL)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = desk.state / local.FILE
        file.write_text(file.read_text().replace(found.url.rpartition(":")[2], str(silent.getsockname()[1])))
        asked = desk.run("health")
    assert asked.returncode == 1
    assert f"(pid {found.os_pid}) does not answer: nothing came within 3 s" in asked.stderr
    stopped = desk.run("stop-server", "--wait", "100ms")
    assert (stopped.returncode, "has not ended within 0.1 s" in stopped.stderr) == (1, True)
    assert "--force" in stopped.stderr
    assert desk.run("stop-server", "--force", "--wait", "300ms").returncode == 0
    assert local.find(desk.state) is None


def test_force_waits_for_no_process(desk: Desk) -> None:
    desk.serve("-d", ".", "--kill-grace-seconds", "3000")
    desk.run("run", "-d", "shell", "trap '' TERM; echo deaf; while :; do sleep 1; done")
    pid = desk.run("ps", "-q").stdout.strip()
    assert pid
    assert desk.run("stop-server", "--force").returncode == 0


def test_a_service_is_stopped_by_its_manager(desk: Desk) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0mhnos-tests-{os.getpid()}")
        assert desk.serve("-d", ".", NOTIFY_SOCKET=f"@mhnos-tests-{os.getpid()}").returncode == 0
        refused = desk.run("stop-server")
    assert refused.returncode == 1
    assert "systemctl stop mhnos-runtime" in refused.stderr
    assert local.find(desk.state) is not None
