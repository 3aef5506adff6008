"""Launch plans as data: what each kind executes, with which environment and limits, and what is refused."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace

import pytest

from mhnos_runtime.config import KindSetting
from mhnos_runtime.errors import InvalidRequest, MhnosError, StartFailed
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.process import kinds
from mhnos_runtime.process import plan as planning
from mhnos_runtime.process.plan import LaunchSettings, Machine, ResolvedRequest

PROGRAMS = {name: f"/usr/bin/{name}" for name in ("python3", "bash", "sh", "zsh", "deno")}
SETTINGS = LaunchSettings("/home/ws", 1 << 30, 1 << 20, 10_000, 5_000)
KINDS = kinds.all_kinds(
    [
        KindSetting("deno", ("deno", "run", "--max={memory_mb}", "{command}", "{args}", "--end")),
        KindSetting("say", ("/opt/say", "text={command}", "{args}"), True, (("A", "kind"),), "text"),
        KindSetting("bare", ("/opt/bare",)),
    ]
)


def machine(
    programs: Mapping[str, str] = PROGRAMS,
    node: str = "/opt/node",
    environment: Mapping[str, str] | None = None,
) -> Machine:
    environment = environment or {}
    return Machine(
        "/usr/bin:/bin", node, "Node.js 22 is not there", environment, lambda name, _: programs.get(name)
    )


def request(command: str = "", *args: str, **more: object) -> ResolvedRequest:
    return replace(ResolvedRequest(command, args, {}, None, 0), **more)  # type: ignore[arg-type]


def plan(kind: str, asked: ResolvedRequest, where: Machine | None = None) -> LaunchPlan:
    return planning.plan(KINDS[kind], asked, SETTINGS, where or machine(), {"name": "x"})


@pytest.mark.parametrize(
    ("kind", "asked", "argv"),
    [
        ("node", request("app.js", "a", "b"), ("/opt/node", "--max-old-space-size=1024", "app.js", "a", "b")),
        ("node", request("-e", "1+1"), ("/opt/node", "--max-old-space-size=1024", "-e", "1+1")),
        ("node", request(), ("/opt/node", "--max-old-space-size=1024")),
        ("node", request("/ws/{memory_mb}.js", "{command}", "{args}"),
         ("/opt/node", "--max-old-space-size=1024", "/ws/{memory_mb}.js", "{command}", "{args}")),
        ("python", request("/ws/a b.py"), ("/usr/bin/python3", "/ws/a b.py")),
        ("python", request("-c", 'x = "$HOME ü"'), ("/usr/bin/python3", "-c", 'x = "$HOME ü"')),
        ("python", request("", "-i"), ("/usr/bin/python3", "-i")),
        ("deno", request("x.ts", "1"), ("/usr/bin/deno", "run", "--max=1024", "x.ts", "1", "--end")),
        ("deno", request(), ("/usr/bin/deno", "run", "--max=1024", "--end")),
        ("say", request("-a b; c"), ("/opt/say", "text=-a b; c")),
        ("say", request(), ("/opt/say",)),
        ("bare", request("ignored", "ignored"), ("/opt/bare",)),
    ],
)  # fmt: skip
def test_what_is_executed(kind: str, asked: ResolvedRequest, argv: tuple[str, ...]) -> None:
    assert plan(kind, asked).argv == argv
    assert plan(kind, replace(asked, pty=(80, 24))).argv == argv


@pytest.mark.parametrize(
    ("asked", "piped", "terminal"),
    [
        (request(), ("/usr/bin/bash",), ("/usr/bin/bash", "-i")),
        (request("bash", "-l"), ("/usr/bin/bash", "-l"), None),
        (request("echo hi; exit 3"), ("/usr/bin/bash", "-c", "echo hi; exit 3", "bash"), None),
        (request("ls", "a b"), ("/usr/bin/bash", "-c", '"$@"', "bash", "ls", "a b"), None),
    ],
)
def test_shells(asked: ResolvedRequest, piped: tuple[str, ...], terminal: tuple[str, ...] | None) -> None:
    assert plan("shell", asked).argv == piped
    assert plan("shell", replace(asked, pty=(80, 24))).argv == (terminal or piped)


@pytest.mark.parametrize("command", ["", "bash", "echo hi"])
def test_a_banner_comes_before_the_shell(command: str) -> None:
    without = plan("shell", request(command, pty=(80, 24))).argv
    argv = plan("shell", request(command, pty=(80, 24), banner="it's %s")).argv
    assert argv == ("/usr/bin/sh", "-c", 'printf \'%s\\n\' "$0"; exec "$@"', "it's %s", *without)


def test_the_plan_carries_settings_and_request() -> None:
    made = plan("python", request("a.py", timeout_ms=77, pty=(100, 30)))
    assert (made.retention_bytes, made.stall_ms, made.timeout_ms) == (1 << 20, 10_000, 77)
    assert (made.pty, made.facts) == ((100, 30), {"name": "x"})
    assert LaunchPlan.from_dict(made.to_dict()) == made


def test_escalation() -> None:
    kill = (5_000, int(signal.SIGKILL))
    assert plan("python", request("a")).escalation == (kill,)
    terminal = request("a", pty=(80, 24))
    assert plan("python", terminal).escalation == ((500, int(signal.SIGHUP)), kill)
    assert plan("shell", terminal).escalation == ((0, int(signal.SIGHUP)), kill)
    quick = replace(SETTINGS, kill_grace_ms=100)
    made = planning.plan(KINDS["python"], terminal, quick, machine(), {})
    assert made.escalation == ((100, int(signal.SIGHUP)), (100, int(signal.SIGKILL)))


# Environment, protocol 1.0

FIXED = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/ws",
    "USER": "mhnos",
    "TERM": "xterm-256color",
    "LANG": "C.UTF-8",
}


def test_environment_is_what_the_protocol_says_and_nothing_else() -> None:
    own = {"MHNOS_TOKEN": "secret", "AWS_KEY": "secret", "HOME": "/root", "PATH": "/own", "LANG_": "x"}
    assert plan("bare", request("a"), machine(environment=own)).env == FIXED


def test_some_of_the_servers_own_is_passed_through() -> None:
    own = {"LANG": "de_DE.UTF-8", "LC_ALL": "C", "TZ": "Europe/Berlin", "DEBUG": "*"}
    assert plan("bare", request("a"), machine(environment={**own, "SECRET": "x"})).env == {**FIXED, **own}


def test_what_is_empty_in_the_servers_own_is_left_out() -> None:
    """An empty LANG once took the place of C.UTF-8."""
    own = dict.fromkeys(("LANG", "LC_ALL", "TZ", "DEBUG"), "")
    assert plan("bare", request("a"), machine(environment=own)).env == FIXED


UNBUFFERED = {"PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize(
    ("kind", "piped", "terminal"),
    [
        ("node", {"NODE_ENV": "production"}, {"NODE_ENV": "production"}),
        ("python", UNBUFFERED, UNBUFFERED),
        ("shell", UNBUFFERED, {"SHELL": "/usr/bin/bash"}),
    ],
)
def test_variables_of_a_kind(kind: str, piped: dict[str, str], terminal: dict[str, str]) -> None:
    """NODE_ENV=production in shells once kept npm from installing what a build needs, without a word."""
    assert plan(kind, request("a")).env == {**FIXED, **piped}
    assert plan(kind, request("a", pty=(80, 24))).env == {**FIXED, **terminal}


def test_an_empty_value_unsets_what_the_kind_gives_and_nothing_else() -> None:
    empty = {"NODE_ENV": "", "LANG": "", "MINE": ""}
    assert plan("node", request("a", env=empty)).env == {**FIXED, "LANG": "", "MINE": ""}
    assert plan("node", request("a", env={"NODE_ENV": "test"})).env == {**FIXED, "NODE_ENV": "test"}


def test_a_terminals_shell_is_the_one_for_more() -> None:
    """tmux in a shell of bash once started sh, and under a service's user nothing at all."""
    terminal = {"pty": (80, 24)}
    assert plan("shell", request("zsh", **terminal)).env["SHELL"] == "/usr/bin/zsh"
    assert plan("shell", request("sh", "-c", "vim", **terminal)).env["SHELL"] == "/usr/bin/bash"
    assert plan("shell", request("a", env={"SHELL": "/x"}, **terminal)).env["SHELL"] == "/x"
    assert plan("shell", request("a", env={"SHELL": ""}, **terminal)).env == FIXED


def test_a_program_is_looked_for_on_the_path_that_the_process_gets() -> None:
    where = replace(machine(), find=lambda name, path: f"[{path}]/{name}")
    assert plan("python", request("a"), where).argv[0] == "[/usr/bin:/bin]/python3"
    assert plan("python", request("a", env={"PATH": "/own"}), where).argv[0] == "[/own]/python3"
    assert plan("python", request("a", env={"PATH": ""}), where).argv[0] == "[/usr/bin:/bin]/python3"
    assert plan("shell", request("a", env={"PATH": "/own"}), where).argv[0] == "[/usr/bin:/bin]/bash"


def test_the_clients_is_on_top_and_the_kinds_between() -> None:
    assert plan("say", request("a")).env == {**FIXED, "A": "kind"}
    asked = request("a", env={"A": "client", "HOME": "/x", "PATH": "", "TERM": "dumb", "Ü": "ß\n="})
    assert plan("say", asked, machine(environment={"LANG": "x"})).env == {
        **FIXED, "LANG": "x", "A": "client", "HOME": "/x", "PATH": "", "TERM": "dumb", "Ü": "ß\n=",
    }  # fmt: skip


# What is refused


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0y"}, {"=": ""}])
def test_names_and_values_that_no_environment_can_have(env: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="not a variable"):
        plan("node", request("a", env=env))


@pytest.mark.parametrize("asked", [request("a\0"), request("a", "\0"), request("-c", "x\0y")])
@pytest.mark.parametrize("kind", ["python", "shell", "say"])
def test_nul_is_refused(kind: str, asked: ResolvedRequest) -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        plan(kind, asked)


@pytest.mark.parametrize(
    "asked",
    [
        request("\ud800"),
        request("a", "\udfff"),
        request("a", env={"A": "\ud83d"}),
        request("a", env={"\ud83d": ""}),
    ],
)
def test_halves_of_characters_are_refused(asked: ResolvedRequest) -> None:
    with pytest.raises(InvalidRequest, match="Unicode"):
        plan("python", asked)


@pytest.mark.parametrize(
    ("kind", "where", "text"),
    [
        ("python", machine({}), "python3: no such program"),
        ("deno", machine({}), "deno: no such program"),
        ("shell", machine({}), "no shell"),
    ],
)
def test_programs_that_are_not_there(kind: str, where: Machine, text: str) -> None:
    with pytest.raises(StartFailed, match=text) as refused:
        plan(kind, request("a b"), where)
    assert refused.value.code == "not-found"
    assert refused.value.hint


def test_a_missing_node_names_the_command_that_brings_it() -> None:
    with pytest.raises(StartFailed, match=r"Node\.js 22 is not there") as refused:
        plan("node", request("a.js"), machine(node=""))
    assert refused.value.code == "engine-missing"
    assert refused.value.hint == "mhnos-runtime engines install node"


def test_a_path_is_not_looked_for() -> None:
    assert plan("bare", request("a"), machine({})).argv == ("/opt/bare",)


def test_errors_are_the_clients_or_the_machines() -> None:
    for error in (InvalidRequest("x"), StartFailed("x")):
        assert isinstance(error, MhnosError)
        assert not error.retry
