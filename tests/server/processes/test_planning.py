"""From requests to launch plans: a real planner on a real workspace, with kinds of the test's own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhnos_runtime import bounds
from mhnos_runtime.channel import encode
from mhnos_runtime.config.kinds import ReadySetting
from mhnos_runtime.errors import InvalidRequest, MhnosError, NotFound, Refused, StartFailed
from mhnos_runtime.launch import FIRST_HANDED, LaunchPlan, Wish
from mhnos_runtime.process.facts import ProcessFacts, SpawnKey
from mhnos_runtime.process.kind import Hooks, Kind, Script, StartContext
from mhnos_runtime.process.plan import MAX_TIMEOUT_MS
from mhnos_runtime.process.ready import Readiness
from mhnos_runtime.sandbox import Policy
from mhnos_runtime.server.processes.keys import digest
from mhnos_runtime.server.processes.planning import DEFAULT_SIZE, Planner
from mhnos_runtime.wire import messages as m
from tests.server.processes.scene import descriptors, is_open, planner, shell


class Writes(Hooks):
    """Leaves a file in the workspace, and hands one over in memory."""

    def write_files(self, workplace: StartContext) -> None:
        workplace.write_new("/written", "text")

    def program(self, script: Script, workplace: StartContext) -> tuple[str, tuple[str, ...]]:
        return f"/proc/self/fd/{workplace.hand(script.real)}", ("needed",)


KINDS = (
    Kind("serves", ("sh", "{command}", "{port:http}", "{socket}"), env=(("TOKEN", "{token}"),)),
    Kind("writes", ("sh", "{command}", "{name:*}={socket:*}"), named_sockets=True, hooks=Writes()),
    Kind("small", ("sh",), limits=(("memory_bytes", 1000), ("tasks", 5)), early_exit="config"),
    Kind("large", ("sh",), needed_memory_bytes=4_000_000_000, single=True),
    Kind("text", ("sh", "-c", "{command}"), command="text", pty=True),
    Kind("engine", ("{engine:workerd}",)),
    Kind("told", ("sh", "{control}"), events=True, ready=ReadySetting()),
)
LIMITED = Policy("none", memory_bytes=2_000_000_000, tasks=100)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "workspace" / "app").mkdir(parents=True)
    (tmp_path / "workspace" / "app" / "main.sh").write_text("")
    return tmp_path / "workspace"


@pytest.fixture
def planned(root: Path) -> Iterator[Planner]:
    before = descriptors()
    made = planner(root.parent, *KINDS, policy=LIMITED)
    opened = descriptors()
    yield made
    assert descriptors() == opened, "each start gives back what it opened"
    made._workspace.close()
    assert descriptors() == before


def plan(
    planned: Planner, request: m.Spawn, environment: Mapping[str, str] | None = None, dry: bool = False
) -> LaunchPlan:
    with planned.prepare(planned.asked(request), environment or {}, dry) as start:
        assert all(map(is_open, start.descriptors.sent()))
        return start.plan


def facts(planned: Planner, request: m.Spawn) -> ProcessFacts:
    return ProcessFacts.decode(plan(planned, request).facts)


def of(kind: str, command: str = "", **fields: Any) -> m.Spawn:
    return m.Spawn(kind, command, **fields)


# What is asked for


def test_a_kind_that_there_is_not(planned: Planner) -> None:
    with pytest.raises(InvalidRequest, match=r"^Unknown process type: ruby$") as refused:
        planned.asked(of("ruby"))
    assert refused.value.code == "unknown-kind"
    assert refused.value.hint.startswith("use one of node, python, shell")


def test_a_kind_that_the_operator_has_not_allowed(planned: Planner) -> None:
    with pytest.raises(Refused) as refused:
        planned.asked(of("openclaw", "start"))
    assert refused.value.code == "kind-disabled"


@pytest.mark.parametrize(
    "request_",
    [
        shell(args=["x"] * (bounds.ARGUMENTS + 1)),
        shell(options=m.SpawnOptions(env=dict.fromkeys(map(str, range(bounds.VARIABLES + 1)), ""))),
        shell(options=m.SpawnOptions(env={"PATH": ":".join("x" * (bounds.PATH_FOLDERS + 1))})),
        shell("x" * (bounds.COMMAND_BYTES + 1)),
        shell(args=["x" * bounds.COMMAND_BYTES]),
        shell(options=m.SpawnOptions(env={"x": "y" * bounds.COMMAND_BYTES})),
    ],
)
def test_too_much_is_refused_before_anything_is_made_of_it(planned: Planner, request_: m.Spawn) -> None:
    with pytest.raises(InvalidRequest) as refused:
        planned.asked(request_)
    assert refused.value.code == "too-large"


def test_names_of_ports_are_checked_first(planned: Planner) -> None:
    with pytest.raises(InvalidRequest, match="not a name"):
        planned.asked(of("serves", ports={"a b": 0}))


# The folder


def test_a_process_starts_in_the_folder_that_it_asks_for(planned: Planner, root: Path) -> None:
    asked = planned.asked(shell(options=m.SpawnOptions(cwd="app/../app/.")))
    with planned.prepare(asked, {}) as start:
        assert os.path.samestat(os.fstat(start.descriptors.folder), (root / "app").stat())
        assert (start.plan.choice.cwd, start.plan.facts["cwd"]) == ("/app", "/app")


@pytest.mark.parametrize("anew", [True, False])
def test_a_workspace_that_is_gone_or_made_anew_is_told(planned: Planner, root: Path, anew: bool) -> None:
    """As by `rm -rf project; git clone ... project`. Each start was then refused as one of a server that was
    taken over."""
    moved = root.rename(root.with_name("moved"))
    if anew:
        root.mkdir()
    with pytest.raises(StartFailed, match="moved or removed") as told:
        plan(planned, shell())
    assert "reload" in told.value.hint
    root.rmdir() if anew else None
    moved.rename(root)
    plan(planned, shell())


@pytest.mark.parametrize("command", ["", "bash"])
def test_an_interactive_shell_starts_in_the_workspace_where_its_folder_is_gone(
    planned: Planner, root: Path, command: str
) -> None:
    asked = planned.asked(shell(command, options=m.SpawnOptions(cwd="/gone")))
    with planned.prepare(asked, {}) as start:
        assert os.path.samestat(os.fstat(start.descriptors.folder), root.stat())
        assert start.plan.choice.cwd == "/"
        assert "mhnos: /gone does not exist; starting in /" in start.plan.argv


@pytest.mark.parametrize(
    "asked",
    [
        of("small"),
        shell("rm -rf *"),
        shell("ls", args=["x"]),
        shell("-c", args=["ls"]),
        shell("bash", args=["x"]),
        shell("", pty=False),
        shell("", args=["-c", "ls"]),
    ],
)
def test_nothing_else_does(planned: Planner, asked: m.Spawn) -> None:
    """Commands once ran in the workspace itself, after a notice on their output."""
    with pytest.raises(NotFound, match="/gone"):
        plan(planned, msgspec.structs.replace(asked, options=m.SpawnOptions(cwd="/gone")))


@pytest.mark.parametrize("kind", ["shell", "small"])
def test_no_program_starts_outside_the_workspace(planned: Planner, root: Path, kind: str) -> None:
    (root / "out").symlink_to("/etc")
    for cwd in ("/..", "/out", "/out/ssl"):
        with pytest.raises(Refused):
            plan(planned, of(kind, options=m.SpawnOptions(cwd=cwd)))


# The command


def test_a_script_is_a_path_in_the_workspace(planned: Planner, root: Path) -> None:
    assert plan(planned, of("python", "/app/main.sh")).argv[1:] == (f"{root}/app/main.sh",)
    inside = m.SpawnOptions(cwd="/app")
    assert plan(planned, of("python", "main.sh", args=["a"], options=inside)).argv[1:] == ("main.sh", "a")
    with pytest.raises(NotFound):
        plan(planned, of("python", "/none.py"))


@pytest.mark.parametrize("command", ["", "-c", "--version"])
def test_a_flag_is_no_script(planned: Planner, command: str) -> None:
    assert plan(planned, of("python", command)).argv[1:] == ((command,) if command else ())


def test_text_is_passed_on_as_it_is(planned: Planner) -> None:
    assert plan(planned, of("text", "/none.py {port}")).argv[1:] == ("-c", "/none.py {port}")


def test_a_kind_s_program_may_take_files_in_memory_and_sockets(planned: Planner, root: Path) -> None:
    asked = planned.asked(of("writes", "/app/main.sh", ports={"mine": 0}))
    with planned.prepare(asked, {}) as start:
        assert os.read(start.descriptors.handed[0], 100) == b"/app/main.sh"
        assert start.plan.argv[1:] == (
            f"/proc/self/fd/{FIRST_HANDED}",
            f"mine={FIRST_HANDED + 1}",
            f"needed={FIRST_HANDED + 2}",
        )
        assert (start.plan.handed, len(start.descriptors.handed)) == (3, 3)
        for port in ProcessFacts.decode(start.plan.facts).ports:
            socket.create_connection((port.address, port.port)).close()
    assert (root / "written").read_text() == "text"


def test_a_dry_start_writes_nothing(planned: Planner, root: Path) -> None:
    plan(planned, of("writes", "/app/main.sh"), dry=True)
    assert not (root / "written").exists()


@pytest.mark.parametrize(
    ("command", "run"),
    [
        ("app/server", "app/server"),
        ("/app/server", "/app/server.js"),
        ("/app", "/app"),
        ("none", "none"),
        ("/none", "/none"),
    ],
)
def test_node_completes_the_name_of_a_script_and_says_what_it_does_not_find(
    planned: Planner, root: Path, command: str, run: str
) -> None:
    (root / "app" / "server.js").write_text("")
    made = plan(replace_node(planned), of("node", command)).argv
    assert made[2] == (f"{root}{run}" if command.startswith("/") else run)


@pytest.mark.parametrize("command", ["out", "/out", "/..", "app/../../x", "links/a"])
def test_no_script_of_node_is_outside_the_workspace(planned: Planner, root: Path, command: str) -> None:
    (root / "out.js").symlink_to("/etc/out.js")
    (root / "links").symlink_to("/etc")
    with pytest.raises(Refused):
        plan(replace_node(planned), of("node", command))


def replace_node(planned: Planner) -> Planner:
    """With a Node.js, whatever the machine has."""
    planned._machine = replace(planned._machine, node="/bin/sh")
    return planned


# Programs


def a_venv(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python3").symlink_to("/bin/sh")
    (folder / "pyvenv.cfg").write_text("")
    return folder


def test_python_is_that_of_the_nearest_virtual_environment(planned: Planner, root: Path) -> None:
    venv = a_venv(root / ".venv")
    made = plan(planned, of("python", "-V", options=m.SpawnOptions(cwd="/app")))
    assert made.argv == (f"{venv}/bin/python3", "-V")
    assert made.env["VIRTUAL_ENV"] == str(venv)
    assert made.env["PATH"].split(":")[0] == f"{venv}/bin"
    assert "VIRTUAL_ENV" not in plan(planned, shell()).env


def test_python_is_the_one_that_a_client_chooses(planned: Planner, root: Path) -> None:
    a_venv(root / ".venv")
    other = a_venv(root / "app" / "other")
    for env, cwd in (
        ({"VIRTUAL_ENV": str(other)}, "/"),
        ({"VIRTUAL_ENV": "other"}, "/app"),
        ({"PATH": f"{other}/bin:/bin"}, "/"),
        ({"PATH": "other/bin"}, "/app"),
    ):
        made = plan(planned, of("python", "-V", options=m.SpawnOptions(cwd=cwd, env=env)))
        assert made.argv[0] == f"{other}/bin/python3"
        assert made.env.items() >= env.items()
    with pytest.raises(StartFailed, match="python3: no such program"):
        plan(planned, of("python", "-V", options=m.SpawnOptions(env={"PATH": "/none"})))


def test_a_virtual_environment_that_is_broken_is_told(planned: Planner, root: Path) -> None:
    (a_venv(root / ".venv") / "bin" / "python3").unlink()
    with pytest.raises(StartFailed, match="virtual environment"):
        plan(planned, of("python", "-V"))


def test_a_script_of_a_shell_whose_interpreter_is_hidden_is_told(root: Path) -> None:
    strict = planner(root.parent, policy=Policy("strict"))
    (root / "tool").write_text("#!/home/ann/.pyenv/python3\n")
    (root / "tool").chmod(0o755)
    with pytest.raises(StartFailed, match=r"/home/ann/\.pyenv/python3: processes do not see it"):
        plan(strict, shell("./tool", args=["x"]))
    strict._workspace.close()


def test_node_in_a_shell_is_that_of_the_kind(root: Path) -> None:
    for folder in ("own", "kind"):
        (root.parent / folder).mkdir()
        (root.parent / folder / "node").write_text("")
        (root.parent / folder / "node").chmod(0o755)
    own, kind = (f"{root.parent}/{folder}" for folder in ("own", "kind"))
    for node, path in (
        (f"{kind}/node", f"{kind}:{own}:/bin"),
        (f"{own}/node", f"{own}:/bin"),
        ("", f"{own}:/bin"),
    ):
        made = planner(root.parent, hello={"node": node, "path": f"{own}:/bin"})
        assert plan(made, shell()).env["PATH"] == path
        made._workspace.close()


# Environment, terminal, time


def test_the_request_s_variables_override_the_kind_s_and_these_the_runtime_s(planned: Planner) -> None:
    request = of("serves", "-", options=m.SpawnOptions(env={"A": "client", "HOME": "/x"}))
    env = plan(planned, request, {"A": "kind", "B": "kind"}).env
    assert (env["A"], env["B"], env["HOME"]) == ("client", "kind", "/x")


@pytest.mark.parametrize(
    ("kind", "asked", "given"),
    [
        ("text", None, DEFAULT_SIZE),
        ("small", None, None),
        ("text", False, None),
        ("small", True, DEFAULT_SIZE),
        ("small", m.PtySize(100, 50), (100, 50)),
    ],
)
def test_who_gets_a_terminal(planned: Planner, kind: str, asked: Any, given: tuple[int, int] | None) -> None:
    assert plan(planned, of(kind, pty=asked)).pty == given


@pytest.mark.parametrize(("asked", "ms"), [(None, 0), (0, 0), (0.4, 0), (1.6, 2), (MAX_TIMEOUT_MS,) * 2])
def test_a_time_is_whole_milliseconds(planned: Planner, asked: float | None, ms: int) -> None:
    assert plan(planned, shell(options=m.SpawnOptions(timeout=asked))).timeout_ms == ms


@pytest.mark.parametrize("asked", [MAX_TIMEOUT_MS + 1, float("inf"), float("nan")])
def test_a_time_that_no_clock_measures(planned: Planner, asked: float) -> None:
    with pytest.raises(InvalidRequest, match="timeout"):
        plan(planned, shell(options=m.SpawnOptions(timeout=asked)))


# Policy


def test_a_kind_and_a_client_narrow_what_the_operator_allows(planned: Planner) -> None:
    assert plan(planned, shell()).choice.wish == Wish("host", 2_000_000_000, 100, 0, 0, 0, 0)
    limits = m.SpawnLimits(memory_bytes=5_000_000_000, tasks=50)
    assert plan(planned, shell(limits=limits)).choice.wish == Wish("host", 2_000_000_000, 50, 0, 0, 0, 0)
    assert plan(planned, of("small", limits=limits)).choice.wish == Wish("host", 1000, 5, 0, 0, 0, 0)


def test_a_kind_that_needs_more_memory_than_there_may_be(planned: Planner, root: Path) -> None:
    with pytest.raises(InvalidRequest, match="needs 4000 MB of memory, and the limit is 2000 MB") as refused:
        plan(planned, of("large"))
    assert refused.value.code == "limit-too-small"
    unlimited = planner(root.parent, *KINDS)
    plan(unlimited, of("large"))
    with pytest.raises(InvalidRequest):
        plan(unlimited, of("large", limits=m.SpawnLimits(memory_bytes=5)))
    unlimited._workspace.close()


def test_a_network_that_the_level_cannot_give(planned: Planner) -> None:
    with pytest.raises(InvalidRequest):
        plan(planned, shell(network="none"))


# Facts


def test_what_the_next_server_has_to_know(planned: Planner) -> None:
    request = of(
        "small", args=["a"], name="mine", linger_ms=5, key="k", id=7, options=m.SpawnOptions(cwd="/app")
    )
    known = facts(planned, request)
    assert (known.kind, known.command, known.args, known.name) == ("small", "", ("a",), "mine")
    assert (known.cwd, known.linger_ms, known.sandbox) == ("/app", 5, "none")
    assert known.key == SpawnKey("k", digest(request))
    assert (known.early_exit, known.single, known.ports, known.watch) == ("config", False, (), None)
    assert (known.ready, known.secrets.token) == (None, None)
    assert facts(planned, shell()).key is None


def test_ports_and_a_token_are_told_to_the_program_and_kept(planned: Planner) -> None:
    first, second = (plan(planned, of("serves", "-c")) for _ in range(2))
    known = ProcessFacts.decode(first.facts)
    numbers = {port.name: port.port for port in known.ports}
    assert first.argv[1:] == ("-c", str(numbers["http"]), str(FIRST_HANDED))
    assert first.env["TOKEN"] == known.secrets.token
    assert len(first.env["TOKEN"]) >= 43, "256 bits"
    assert first.env["TOKEN"] != second.env["TOKEN"]


def test_a_kind_that_tells_where_it_listens_gets_a_socket_for_that(planned: Planner) -> None:
    made = plan(planned, of("told"))
    assert (made.control, made.argv[1:]) == (True, (str(FIRST_HANDED),))
    assert ProcessFacts.decode(made.facts).ready == Readiness("starting")


def test_a_kind_without_its_engine(planned: Planner) -> None:
    with pytest.raises(StartFailed) as refused:
        plan(planned, of("engine"))
    assert refused.value.code == "engine-missing"


# The config of a worker


def test_a_worker_s_config_follows_from_script_options_and_policy(planned: Planner, root: Path) -> None:
    (root / "app" / "hello.mjs").write_text("")
    inside = m.SpawnOptions(cwd="/app")
    config = planned.worker_config(m.WorkerConfig("hello.mjs", options=inside))
    assert f'embed "{root}/app/hello.mjs"' in config
    for wrong, error in (("none.js", NotFound), ("hello.txt", InvalidRequest), ("/../x.js", Refused)):
        with pytest.raises(error):
            planned.worker_config(m.WorkerConfig(wrong, options=inside))
    with pytest.raises(InvalidRequest):
        planned.worker_config(m.WorkerConfig("hello.mjs", options=inside, network="none"))


# Anything


WORDS = st.sampled_from(
    ["", "/", "..", "app", "/app/main.sh", "main.sh", "/none", "-c", "a\0b", "{port}", "…"]
)
KIND_NAMES = ["node", "python", "shell", "workerd", "openclaw", *(kind.name for kind in KINDS), "none"]
REQUESTS = st.builds(
    m.Spawn,
    process_type=st.sampled_from(KIND_NAMES),
    command=WORDS,
    args=st.lists(WORDS, max_size=2),
    options=st.builds(
        m.SpawnOptions,
        cwd=st.none() | WORDS,
        env=st.none() | st.dictionaries(WORDS, WORDS, max_size=2),
        timeout=st.none() | st.sampled_from([0, -1, 5, 1e300, float("nan")]),
    ),
    pty=st.none() | st.booleans(),
    network=st.none() | st.sampled_from(["host", "loopback", "none", "other"]),
    ports=st.none() | st.dictionaries(st.sampled_from(["http", "main", "x y"]), st.just(0), max_size=2),
    limits=st.none() | st.builds(m.SpawnLimits, memory_bytes=st.sampled_from([0, 5, 1 << 40])),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS)
def test_whatever_is_asked_for_is_planned_or_refused(planned: Planner, request_: m.Spawn) -> None:
    before = descriptors()
    with contextlib.suppress(MhnosError):
        made = plan(planned, request_)
        assert os.path.isabs(made.argv[0])
        assert ProcessFacts.decode(made.facts).kind == request_.process_type
        encode(made.to_request())
    assert descriptors() == before
