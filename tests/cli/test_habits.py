"""What people who come from docker, tmux and Jupyter type, and what they get."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.cli import local
from mhnos_runtime.proc import descendants
from mhnos_runtime.sandbox import HostFacts
from mhnos_runtime.sandbox.probe import probe
from mhnos_runtime.testing import TestServer
from tests.cli.console import Console
from tests.cli.desk import BIN, Desk
from tests.sandbox.conftest import place

pytestmark = pytest.mark.timeout(90)
SYSTEM_PATH = "/usr/bin:/bin"
SYSTEM_PYTHON = shutil.which("python3", path=SYSTEM_PATH)
needs_system_python = pytest.mark.skipif(SYSTEM_PYTHON is None, reason="the system has no Python")


@pytest.fixture(scope="module")
def facts() -> HostFacts:
    return probe(None)


@pytest.fixture(scope="module")
def level(facts: HostFacts) -> str:
    """The default one, where this machine can give it."""
    return "none" if facts.missing("strict") else "strict"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = place()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(folder: Path, level: str) -> AsyncIterator[TestServer]:
    flags = ("--sandbox", level, *(("--allow-root",) if level == "none" and os.geteuid() == 0 else ()))
    without_language = ("env", "-u", "LANG", "-u", "LC_ALL")
    # The Python of the tests is the one that processes find, where they see it: a version manager's is slow.
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    async with TestServer(folder / "shared", *flags, prefix=without_language, environment=path) as running:
        yield running


@pytest.fixture
def desk(server: TestServer, level: str) -> Desk:
    return Desk(server.state_dir, server.workspace, level)


# Programs


def test_a_build_gets_what_it_needs_and_a_server_is_in_production(desk: Desk) -> None:
    """npm installed no devDependencies, and said nothing."""
    assert desk.type("mr run shell 'echo ${NODE_ENV-unset}'") == (0, "unset\n", "")
    in_python = """mr run python -c 'import os; print("NODE_ENV" in os.environ)'"""
    assert desk.type(in_python) == (0, "False\n", "")
    assert desk.type("mr run node -p process.env.NODE_ENV") == (0, "production\n", "")
    assert desk.type("mr run -e NODE_ENV= node -p process.env.NODE_ENV") == (0, "undefined\n", "")


def test_node_finds_what_it_always_does(desk: Desk) -> None:
    desk.write("web/server.js", "console.log(__filename)")
    desk.write("web/lib/index.js", "console.log(__filename)")
    for words, found in (
        ("web/server", "web/server.js"),
        ("web/lib", "web/lib/index.js"),
        ("-w web lib", "web/lib/index.js"),
    ):
        option, _, script = words.rpartition(" ")
        assert desk.type(f"mr run {option} node {script}") == (0, f"{desk.home}/{found}\n", "")
    code, out, err = desk.type("mr run node nosuch")
    assert (code, out, f"Cannot find module '{desk.home}/nosuch'" in err) == (1, "", True)


def test_there_is_one_node(desk: Desk) -> None:
    kind = desk.type("mr run node -p 'process.execPath + process.version'")
    assert (kind.code, kind.err) == (0, "")
    assert desk.type("""mr run shell 'node -p "process.execPath + process.version"'""") == kind


def test_a_program_s_first_words_are_in_its_log_while_it_runs(desk: Desk) -> None:
    desk.write("serve.py", "import time\nprint('listening')\ntime.sleep(600)\n")
    assert desk.type("mr run -d --name quiet python serve.py").code == 0
    shown = desk.type("""until out=$(mr logs quiet) && [ "$out" ]; do :; done; echo $out""")
    assert shown == (0, "listening\n", "")
    assert desk.type("mr run --timeout 700ms python serve.py | cat").out == "listening\n"
    assert desk.type("mr kill quiet") == (0, "quiet\n", "")


@needs_system_python
def test_python_is_that_of_the_nearest_virtual_environment(desk: Desk) -> None:
    """The system's ran, whose pip refuses (PEP 668)."""
    made = desk.type("mr run shell 'mkdir -p venvs/src && cd venvs && python3 -m venv --without-pip .venv'")
    assert made == (0, "", "")
    prefix = "python -c 'import sys; print(sys.prefix)'"
    for cwd in ("venvs", "venvs/src"):
        assert desk.type(f"mr run --cwd {cwd} {prefix}") == (0, f"{desk.home}/venvs/.venv\n", "")
    system = desk.type(f"mr run {prefix}")
    assert desk.home not in system.out
    assert desk.type(f"mr run --cwd venvs -e VIRTUAL_ENV= {prefix}") == system
    assert desk.type(f"mr run --cwd venvs -e PATH={SYSTEM_PATH} {prefix}").out == "/usr\n"
    chosen = f"{desk.home}/venvs/.venv"
    assert desk.type(f"mr run -e VIRTUAL_ENV={chosen} {prefix}") == (0, f"{chosen}\n", "")


@needs_system_python
def test_a_virtual_environment_of_the_host_works(desk: Desk) -> None:
    """Its scripts name the host's path: they were not found."""
    venv = desk.folder / "host" / ".venv"
    subprocess.run([str(SYSTEM_PYTHON), "-m", "venv", "--without-pip", venv], check=True)
    desk.write("host/.venv/bin/tool", f"#!{venv}/bin/python3\nimport sys; print(sys.prefix)\n", 0o755)
    assert desk.type("mr run --cwd host shell .venv/bin/tool") == (0, f"{venv}\n", "")
    assert desk.type("mr run --cwd host shell 'cat /dev/null; .venv/bin/tool'") == (0, f"{venv}\n", "")


def test_an_interpreter_that_processes_do_not_see_is_named(desk: Desk, folder: Path) -> None:
    if desk.level == "none":
        pytest.skip("without a sandbox processes see all")
    hidden = folder / "hidden" / "python3"
    hidden.parent.mkdir()
    shutil.copy("/bin/sh", hidden)
    desk.write("odd/venv/pyvenv.cfg", "")
    (desk.folder / "odd/venv/bin").mkdir()
    (desk.folder / "odd/venv/bin/python3").symlink_to(hidden)
    desk.write("odd/venv/bin/pip", f"#!{desk.folder}/odd/venv/bin/python3\n", 0o755)
    for words in ("python -V", "shell venv/bin/pip --version"):
        code, out, err = desk.type(f"mr run --cwd odd {words}")
        assert (code, out) == (127, "")
        assert f"python3 is {hidden}: processes do not see it (sandbox strict)\nhint: " in err


# A shell


def test_words_run_as_they_are_typed(desk: Desk) -> None:
    """Words became $1 and so on: it listed everything, or printed nothing with status 0."""
    desk.write("words/a b", "")
    for line in ("ls words", "-- ls words", "-c 'ls words'", "'ls words'", "-- 'ls words'"):
        assert desk.type(f"mr run shell {line}") == (0, "a b\n", "")
    assert desk.type("mr run shell ls 'words/a b'") == (0, "words/a b\n", "")
    assert desk.type("mr run shell ls -la words").out.splitlines()[-1].endswith(" a b")
    assert desk.type("mr run shell -c 'echo $0-$1' x y") == (0, "x-y\n", "")
    assert desk.type("mr run shell nosuch-program x").code == 127
    if shutil.which("bash", path=SYSTEM_PATH):
        assert desk.type("mr run shell '[[ $BASH_VERSION && a == a ]]'") == (0, "", "")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_folder_that_is_not_there(desk: Desk) -> None:
    """A command ran in the workspace instead."""
    desk.write("precious", "")
    refused = (127, "", "mhnos-runtime: No such file or directory: /none\n")
    for line in ("mr run --cwd none shell 'rm -rf *'", "mr run -d --cwd none shell rm precious"):
        assert desk.type(line) == refused
    assert (desk.folder / "precious").exists()
    async with Console("run", "-it", "--cwd", "none", "shell", env=desk.env()) as terminal:
        await terminal.until(b"mhnos: /none does not exist; starting in /\r\n")
        terminal.type(b"ls precious; exit\r")
        assert await terminal.exit_code() == 0


def test_a_shell_in_the_background_has_pipes_and_with_t_a_terminal(desk: Desk) -> None:
    script = shlex.quote("test -t 1 && echo terminal || echo pipes; echo error >&2")
    assert desk.type(f"mr run -d --name piped shell {script} && mr wait piped").code == 0
    assert desk.type("mr logs piped") == (0, "pipes\n", "error\n")
    assert desk.type(f"mr run -dt --name tty shell {script} && mr wait tty").code == 0
    assert desk.type("mr logs tty") == (0, "terminal\r\nerror\r\n", "")


def test_variables_that_are_not_set_are_left_alone(desk: Desk) -> None:
    assert desk.type("unset BAD; mr run -e BAD shell 'echo ${BAD-unset}'") == (0, "unset\n", "")
    assert desk.type("BAD=x; export BAD; mr run -e BAD shell 'echo $BAD'") == (0, "x\n", "")
    assert desk.type("mr run shell 'echo $LANG ${LC_ALL-unset}'") == (0, "C.UTF-8 unset\n", "")


# Output


def test_lines_bear_the_time_at_which_they_were_written(desk: Desk) -> None:
    """All bore that of the first one, and --since showed nothing."""
    assert desk.type("mr run --name clock shell 'echo first; sleep 1.5; echo second'").code == 0
    stamped = desk.type("mr logs -t clock").out.split()
    assert stamped[1::2] == ["first", "second"]
    first, second = map(datetime.fromisoformat, stamped[::2])
    assert (second - first).total_seconds() >= 1
    assert desk.type(f"mr logs --since {stamped[2]} clock") == (0, "second\n", "")
    assert desk.type("mr logs --since 1h clock") == (0, "first\nsecond\n", "")


def test_what_is_no_longer_kept_is_named(desk: Desk) -> None:
    """It began in the middle, without a word."""
    assert desk.type("mr run --name much shell 'yes 0123456 | head -c 7000000' | wc -c").out == "7000000\n"
    for line in ("mr logs much", "mr attach --no-stdin much", "mr attach much"):
        code, out, err = desk.type(line)
        gap = 7_000_000 - len(out)
        assert (code, err) == (0, f"[{gap} bytes of output are no longer kept: 0 to {gap}]\n")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_an_editor_asked_is_not_answered_by_the_person_s_terminal(desk: Desk) -> None:
    """The answers were typed into the prompt."""
    asks = shlex.quote(r"printf 'a\033[6n\033[>c\033]11;?\007\033P+q544e\033\\b'")
    assert desk.type(f"mr run -dt --name editor shell {asks} && mr wait editor").code == 0
    for verb in ("logs", "attach"):
        async with Console(verb, "editor", env=desk.env()) as terminal:
            assert await terminal.exit_code() == 0
            await terminal.until(b"ab")
            assert not any(question in terminal.seen for question in (b"6n", b">c", b"]11", b"+q"))


def test_what_was_said_is_found_again(desk: Desk) -> None:
    assert desk.type("mr run --name talk shell 'echo one apple; echo two pears; echo no >&2'").code == 0
    assert desk.type("mr logs --grep 'p+le' talk") == (0, "one apple\n", "")
    found = desk.type("mr search 'PEARS?$' -i")
    assert re.fullmatch(r"talk: \S+Z: two pears\n", found.out), found
    (match,) = json.loads(desk.type("mr search --json 'two p'").out)["matches"]
    assert (match["line"], match["offset"]) == ("two pears", 10)


# Verbs


def test_verbs_of_docker(desk: Desk) -> None:
    pid = desk.type("mr run -d --name box -e ONE=1 shell 'sleep 600'").out.strip()
    assert desk.type("mr rename box crate; mr ps -q --filter name=crate").out == f"{pid}\n"
    assert desk.type("mr exec crate 'echo $ONE'") == (0, "1\n", "")
    desk.write("shelf/book", "")
    assert desk.type("mr exec -w shelf crate ls") == (0, "book\n", "")
    assert [each["name"] for each in json.loads(desk.type("mr inspect crate").out)] == ["crate"]
    assert desk.type("mr run -d --name crate shell true").code == 125
    assert desk.type("mr port crate") == (0, "", "")
    assert f"{pid}  crate " in desk.type("mr top").out
    assert desk.type("mr rm crate").code == 1
    assert desk.type("mr stop -t 60 crate && mr wait crate") == (0, "crate\n143\n", "")
    assert "exited (143, killed)" in desk.type("mr ps -a --filter name=crate").out
    assert desk.type("mr rm crate && mr ps -aq --filter name=crate") == (0, "crate\n", "")


def test_who_ends_the_command_ends_the_program(desk: Desk) -> None:
    line = "timeout 2 mhnos-runtime run --name ended shell 'exec sleep 600'; mr wait ended"
    assert desk.type(line).out == "143\n"


def test_a_reader_that_goes_leaves_the_program_and_is_told(desk: Desk) -> None:
    code, out, err = desk.type("mr run --name tap shell yes | head -n 1; mr kill tap >&2")
    assert (code, out) == (0, "y\n")
    assert "goes on; `mhnos-runtime attach " in err


def test_kill_takes_a_signal_as_everywhere(desk: Desk) -> None:
    for option, code in (("-9", 137), ("-KILL", 137), ("-s TERM", 143), ("", 143)):
        line = f"P=$(mr run -d shell 'sleep 600'); mr kill {option} $P >&2; mr wait $P"
        assert desk.type(line).out == f"{code}\n"


def test_a_program_in_the_place_of_a_kind(desk: Desk) -> None:
    for words, instead in (
        ("bash", "bash"),
        ("npm install", "'npm install'"),
        ("'npm install'", "'npm install'"),
    ):
        code, out, err = desk.type(f"mr run {words}")
        assert (code, out) == (125, "")
        assert f"hint: use: mhnos-runtime run shell {instead}; as a kind use one of node, " in err


def test_with_rm_nothing_stays(desk: Desk) -> None:
    assert desk.type("mr run --rm --name brief shell 'echo x; exit 3'") == (3, "x\n", "")
    assert desk.type("mr run -d --rm --name brief shell 'sleep 600' >&2; mr kill brief").out == "brief\n"
    assert desk.type("mr ps -aq --filter name=brief") == (0, "", "")
    assert desk.type("mr logs brief").err.startswith("mhnos-runtime: Process brief not found\nhint: ")


def test_an_end_that_was_not_its_own_is_told_in_one_line(desk: Desk) -> None:
    assert desk.type("mr run --timeout 300ms shell 'sleep 600'") == (124, "", "[timed out after 300 ms]\n")
    other = "mr run --name victim shell 'echo up; sleep 600' | { read; mr kill -9 victim >/dev/null; }"
    assert desk.type(f"set -o pipefail; {other}") == (137, "", "[killed by another client]\n")
    planned = json.loads(desk.type("mr run --dry-run shell true").out)
    if planned["isolation"]["limits"]["memory"].startswith("cgroup"):
        line = "mr run --limit memory_bytes=64m python -c 'x = bytearray(500 << 20)'"
        assert desk.type(line) == (137, "", "[killed: memory limit of 64 MiB]\n")


# The server


def test_without_a_server_the_next_step_is_told(desk: Desk, folder: Path) -> None:
    nothing = {"MHNOS_STATE_DIR": str(folder / "nothing")}
    code, out, err = desk.type("mr health", **nothing)
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        f"mhnos-runtime: no runtime uses {folder}/nothing",
        "hint: `mhnos-runtime serve` starts one; --state-dir or MHNOS_STATE_DIR names another",
    ]
    with socket.create_server(("127.0.0.1", 0)) as port:
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
    for line in (f"mr check {url}", f"mr ps --url {url}", f"mr --url {url} ps"):
        code, out, err = desk.type(line, **nothing)
        assert (code, out) == (1, "")
        assert err.splitlines() == [
            f"mhnos-runtime: cannot connect to {url}: Connection refused",
            "hint: is it running? `mhnos-runtime serve` starts one here",
        ]


def test_a_forwarded_port_may_have_another_number(desk: Desk, server: TestServer) -> None:
    """As with `ssh -L 19000:127.0.0.1:18790`: it was refused by 421, without the server's hint."""
    with forwarded(port_of(server)) as port:
        for name in ("127.0.0.1", "localhost"):
            assert desk.type(f"mr --url ws://{name}:{port} run shell 'echo through'") == (0, "through\n", "")
        assert desk.type(f"mr run --url http://127.0.0.1:{port} shell 'exit 3'").code == 3


def test_pages_are_told_what_is_wrong(server: TestServer) -> None:
    """A WebSocket ended with 1006, whatever it was."""
    own, token = f"http://127.0.0.1:{port_of(server)}", f"Bearer {server.token}"
    for path, headers, answer in (
        ("/health", {"Origin": own}, (200, None, own)),
        ("/health", {"Origin": "http://127.0.0.1:1"}, (403, "forbidden-origin", None)),
        ("/health", {"Host": "x.example"}, (421, "forbidden-host", None)),
        ("/v1/hello", {"Origin": own, "Authorization": "Bearer x"}, (401, "unauthorized", own)),
        ("/v1/hello", {"Origin": own, "Authorization": token}, (200, None, own)),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=20)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        code = json.loads(response.read()).get("code")
        allowed = response.getheader("Access-Control-Allow-Origin")
        assert (response.status, code, allowed) == answer
        connection.close()


def test_the_log_tells_of_processes_and_not_of_connections(desk: Desk, server: TestServer) -> None:
    assert desk.type("mr run --name logged shell 'exit 3'").code == 3
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    of_it = [line for line in lines if line.get("name") == "logged"]
    assert [(line["msg"], line["level"], line["kind"]) for line in of_it] == [
        ("process started", "info", "shell"),
        ("process ended", "info", "shell"),
    ]
    assert (of_it[1]["reason"], of_it[1]["code"]) == ("exit", 3)
    assert not any("client" in line["msg"] or "connect" in line["msg"] for line in lines)


@pytest.mark.skipif(shutil.which("ps") is None, reason="the machine has no ps")
def test_ps_of_the_machine_names_the_runtime(desk: Desk, server: TestServer) -> None:
    """It showed 2.5 kB of options for each process."""
    pid = desk.type("mr run -d shell 'sleep 600'").out.strip()
    family = ",".join(map(str, [server.pid, *descendants([server.pid])]))
    shown = desk.type(f"ps -ww -o args= -p {family}").out.splitlines()
    assert {"mhnos-runtime: supervisor", "mhnos-runtime: server", "sleep 600"} <= set(shown)
    assert max(map(len, shown)) < 100, shown
    assert desk.type(f"mr kill {pid}").code == 0


def test_doctor_and_engines_agree(desk: Desk) -> None:
    listed, told = desk.type("mr engines list").out, desk.type("mr doctor").out
    for engine in ("node", "workerd", "openclaw"):
        there = re.search(rf"^{engine} .* (found|installed) ", listed, re.MULTILINE)
        assert (f"\nok  {engine} " in told) is (there is not None), listed + told


def test_a_folder_of_one_s_own_in_the_background(desk: Desk, folder: Path) -> None:
    project, state = folder / "project", folder / "state"
    project.mkdir()
    mine = Desk(state, project, desk.level)
    root_too = "--allow-root" if desk.level == "none" and os.geteuid() == 0 else ""
    try:
        serve = f"{BIN}/mhnos-runtime serve -d --port 0 --sandbox {desk.level} {root_too} ."
        started = mine.type(serve, MHNOS_LOG_LEVEL="warn", PATH=SYSTEM_PATH)
        assert (started.code, f"  workspace  {project}\n" in started.out) == (0, True)
        tried = re.search(r"^  try +(.*) run -it shell$", started.out, re.MULTILINE)
        assert tried is not None
        assert mine.type(f"{tried[1]} run shell pwd", PATH=SYSTEM_PATH) == (0, f"{mine.home}\n", "")
        line = "mr run --name last shell 'echo up; sleep 600' | { read; mr stop-server >/dev/null; }"
        ended = mine.type(f"set -o pipefail; {line}")
        assert ended == (143, "", "[ended: the runtime was stopped]\n")
        assert mine.type("mr health").err.startswith(f"mhnos-runtime: no runtime uses {state}\n")
    finally:
        if local.find(state) is not None:
            mine.type("mr stop-server --force")


def port_of(server: TestServer) -> int:
    return int(server.url.rpartition(":")[2])


@contextlib.contextmanager
def forwarded(to: int) -> Iterator[int]:
    """Another port that leads to the same server, for one connection at a time."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                with near, socket.create_connection(("127.0.0.1", to)) as far, contextlib.suppress(OSError):
                    relay(near, far)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def relay(near: socket.socket, far: socket.socket) -> None:
    """Until one of the two is closed."""
    other = {near: far, far: near}
    while True:
        for each in select.select(other, (), ())[0]:
            if not (data := each.recv(65536)):
                return
            other[each].sendall(data)
