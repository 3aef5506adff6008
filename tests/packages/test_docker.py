"""The image and compose.yaml on a real Docker engine: hardening from inside, faults, upgrade, escapes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.client import Output, connect
from tests.packages.conftest import CACHE
from tests.packages.engine import IMAGE, Engine
from tests.packages.wheel import ROOT, copy_checkout, readme_lines, run
from tests.project.console import Step
from tests.project.console import run as shown_as_run

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("docker")]

FOLDER = ROOT / "packaging" / "docker"
#: What compose.yaml gives, for `docker run`.
HARDENED = (
    *("--read-only", "--tmpfs=/tmp:size=256m,mode=1777", "--cap-drop=ALL", "--user=9999:9999"),
    *("--security-opt=no-new-privileges:true", "--security-opt=systempaths=unconfined"),
    "--security-opt=apparmor=unconfined",
)
PROFILE = f"--security-opt=seccomp={FOLDER}/seccomp.json"
SOON = 30.0
LINES = 1500
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.004; done"
STOPPED = (
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); "
    "print('up', flush=True); print(signal.sigwait([15]).value)"
)
COUNTED = "".join(f"line {number}\n" for number in range(LINES)).encode()


def eventually(what: Callable[[], Any], seconds: float = SOON) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(CACHE) as running:
        yield running


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    return engine.build()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Project:
    """compose.yaml with a port of its own. url, token: for clients on this machine."""

    def __init__(self, engine: Engine, name: str, *files: str, **settings: str) -> None:
        self.port = free_port()
        self.engine = engine
        self.url = f"http://127.0.0.1:{self.port}"
        self._files = ("compose.yaml", *files)
        self._name = name
        self.settings = {
            "MHNOS_IMAGE": IMAGE,
            "MHNOS_PUBLISH": f"127.0.0.1:{self.port}",
            "MHNOS_ALLOW_HOST": f"127.0.0.1:{self.port}",
            **settings,
        }

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        files = [word for file in self._files for word in ("--file", str(FOLDER / file))]
        return self.engine.call("compose", "--project-name", self._name, *files, *words, env=self.settings)

    def run(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def up(self) -> None:
        """Until it is healthy."""
        self.run("up", "--detach", "--no-build", "--wait")

    def inside(self, *words: str) -> str:
        return self.run("exec", "-T", "runtime", *words)

    @property
    def container(self) -> str:
        return self.run("ps", "--all", "--quiet", "runtime").strip()

    @property
    def token(self) -> str:
        return self.inside("mhnos-runtime", "token").strip()

    def down(self) -> None:
        self.call("down", "--volumes", "--timeout", "10")


@pytest.fixture(scope="module")
def project(engine: Engine, image: str) -> Iterator[Project]:
    made = Project(engine, "mhnos-test")
    try:
        yield made
    finally:
        made.down()


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


def test_from_nothing_to_a_healthy_container(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.up()
    state = project.engine.inspect(project.container)["State"]
    healthy = datetime.fromisoformat(state["Health"]["Log"][0]["End"])
    seconds = (healthy - datetime.fromisoformat(state["StartedAt"])).total_seconds()
    assert state["Health"]["Log"][0]["ExitCode"] == 0
    size = project.engine.inspect(IMAGE)["Size"]
    stats = project.engine.run("stats", "--no-stream", "--format", "{{.MemUsage}}", project.container)
    with capfd.disabled():
        print(
            f"\ndocker: image {size / 1e6:.0f} MB, healthy after {seconds:.1f} s, idle memory {stats.strip()}"
        )
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


def test_the_log_tells_where_the_token_is_and_not_what_it_is(project: Project) -> None:
    log = project.run("logs", "runtime")
    assert "mhnos-runtime token shows it" in log
    assert project.token not in log


def test_the_container_is_hardened(project: Project) -> None:
    status = project.inside("cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["9999"] * 4
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert project.inside("cat", "/proc/1/cmdline").replace("\0", " ").count("mhnos_runtime.supervisor") == 1
    for path in ("/x", "/usr/x", "/opt/mhnos-runtime/x", "/etc/x"):
        assert "Read-only file system" in project.call("exec", "-T", "runtime", "touch", path).stderr
    settings = project.engine.inspect(project.container)["HostConfig"]
    assert settings["PidsLimit"] > 0
    assert settings["Memory"] > 0
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["Privileged"]


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
    levels = json.loads(project.inside("mhnos-runtime", "doctor", "--json"))["levels"]
    assert {name for name, level in levels.items() if level["available"]} == {"strict", "relaxed", "none"}
    project.inside("mhnos-runtime", "check")
    assert "workerd" in project.inside("mhnos-runtime", "engines", "list")
    (row,) = json.loads(
        project.inside("sh", "-c", "mhnos-runtime run -d shell 'sleep 60' >&2; mhnos-runtime ps --json")
    )
    assert row["sandbox"] == "strict"


async def test_a_killed_server_loses_no_byte(project: Project) -> None:
    kill = "pkill -KILL -f [m]hnos_runtime.server"
    assert await counted(project, lambda: project.inside("sh", "-c", kill)) == COUNTED


async def test_a_reload_loses_no_byte(project: Project) -> None:
    assert await counted(project, lambda: project.inside("mhnos-runtime", "reload")) == COUNTED


def test_orphans_are_reaped(project: Project) -> None:
    project.inside("sh", "-c", "(sleep 0.2 &) ; (sleep 0.2 &)")
    eventually(lambda: "Z" not in project.inside("ps", "-eo", "stat="))


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
    project.inside("sh", "-c", f'echo "{STOPPED}" > /workspace/stop.py')
    process = project.inside("mhnos-runtime", "run", "-d", "python", "stop.py").strip()
    eventually(lambda: "up" in project.inside("mhnos-runtime", "logs", process))
    started = time.monotonic()
    project.run("stop")
    assert time.monotonic() - started < 10
    assert project.engine.inspect(project.container)["State"]["ExitCode"] == 0
    project.up()
    assert project.inside("mhnos-runtime", "logs", process) == "up\n15\n"


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
    project.down()


def test_the_lines_of_the_readme_lead_from_a_clone_to_a_shell(engine: Engine, image: str) -> None:
    """What is built has been built already, since the engine's own network leads nowhere."""
    project = Project(engine, "mhnos", MHNOS_BASE=engine.base_image(), MHNOS_IMAGE=f"{image}:readme")
    up, shell = readme_lines("compose.yaml up")
    env = {**engine.env, **project.settings}
    try:
        run(["bash", "-c", up], ROOT, env)
        eventually(lambda: project.call("exec", "-T", "runtime", "mhnos-runtime", "health").returncode == 0)
        said = run(
            ["bash", "-c", shown_as_run(Step(0, shell)).replace("exit\\n", "id -un; exit\\n")], ROOT, env
        )
        assert "mhnos" in said.splitlines()
    finally:
        project.down()


def test_limits_bite(engine: Engine, image: str) -> None:
    memory = 'import sys; x = bytearray(10**9); print("had it")'
    limited = ("run", "--rm", "--memory=200m", "--memory-swap=200m", "--pids-limit=20", *HARDENED, PROFILE)
    done = engine.call(*limited, "--entrypoint=python3", image, "-c", memory)
    assert (done.returncode, done.stdout) == (137, "")
    fork = "for i in $(seq 40); do sleep 5 & done; echo all"
    done = engine.call(*limited, "--entrypoint=bash", image, "-c", fork)
    assert "Resource temporarily unavailable" in done.stderr


def test_the_profile_tls_puts_caddy_in_front(engine: Engine, image: str, tmp_path: Path) -> None:
    """With Debian's Caddy, whose own authority signs for localhost."""
    lines = [f"FROM {engine.base_image()}", "ENV XDG_DATA_HOME=/data"]
    lines += ["RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends caddy"]
    lines += ['CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]']
    port = free_port()
    project = Project(
        engine,
        "mhnos-tls",
        MHNOS_CADDY_IMAGE=engine.build_from(lines, "mhnos-test-caddy"),
        MHNOS_TLS_PUBLISH=f"127.0.0.1:{port}",
        MHNOS_HTTP_PUBLISH=f"127.0.0.1:{free_port()}",
        MHNOS_ALLOW_HOST=f"localhost:{port}",
    )
    try:
        project.run("--profile", "tls", "up", "--detach", "--no-build", "--wait")
        root = "/data/caddy/pki/authorities/local/root.crt"
        eventually(lambda: project.call("exec", "-T", "caddy", "test", "-s", root).returncode == 0)
        (tmp_path / "root.pem").write_text(project.run("exec", "-T", "caddy", "cat", root))
        (tmp_path / "token").write_text(project.token)
        check = [sys.executable, "-m", "mhnos_runtime", "check", f"https://localhost:{port}"]
        env = {**engine.env, "SSL_CERT_FILE": str(tmp_path / "root.pem")}
        run([*check, "--token-file", tmp_path / "token"], ROOT, env)
    finally:
        project.call("--profile", "tls", "down", "--volumes")


def refusal(engine: Engine, image: str, *options: str) -> str:
    done = engine.call("run", "--rm", *HARDENED, *options, image, "serve")
    assert done.returncode != 0
    return done.stderr


def test_strict_is_refused_with_docker_s_own_profile(engine: Engine, image: str) -> None:
    said = refusal(engine, image)
    assert "sandbox is strict by default, which this machine cannot give" in said
    assert "MHNOS_SANDBOX=relaxed" in said


def test_relaxed_works_with_docker_s_own_profiles(engine: Engine, image: str) -> None:
    project = Project(engine, "mhnos-relaxed", "compose.relaxed.yaml")
    try:
        project.up()
        options = engine.inspect(project.container)["HostConfig"]["SecurityOpt"]
        assert options == ["no-new-privileges:true"]
        assert engine.inspect(project.container)["HostConfig"]["MaskedPaths"]
        levels = json.loads(project.inside("mhnos-runtime", "doctor", "--json"))["levels"]
        assert levels["relaxed"]["available"]
        assert levels["strict"] == {"available": False, "missing": ["user namespaces"]}
        assert project.inside("mhnos-runtime", "run", "shell", "cat /proc/1/environ || echo no") == "no\n"
    finally:
        project.down()


@pytest.mark.parametrize(
    "call", ["clone", "unshare", "setns", "mount", "umount2", "pivot_root", "sethostname"]
)
def test_every_addition_to_the_profile_is_needed(
    engine: Engine, image: str, tmp_path: Path, call: str
) -> None:
    profile = json.loads((FOLDER / "seccomp.json").read_text())
    added = [rule for rule in profile["syscalls"] if rule.get("comment", "").startswith("mhnos: ")]
    profile["syscalls"] = [
        rule for rule in profile["syscalls"] if rule not in added or rule["names"] != [call]
    ]
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    option = f"--security-opt=seccomp={tmp_path}/profile.json"
    if call != "setns":
        assert "which this machine cannot give" in refusal(engine, image, option)
        return
    # Only a start joins namespaces.
    start = "mhnos-runtime serve & mhnos-runtime health --wait 20; mhnos-runtime run shell true"
    done = engine.call("run", "--rm", *HARDENED, option, "--entrypoint=sh", image, "-c", start)
    assert done.returncode != 0
    assert "could not be started (namespaces: Operation not permitted)" in done.stderr


def test_a_hostile_process_meets_the_same_escape_suite(engine: Engine, image: str) -> None:
    """The sandbox's own tests, inside a container as compose.yaml makes it."""
    lines = [f"FROM {image}", "USER 0:0", "RUN apt-get update -qq && apt-get install -y -qq python3-venv"]
    lines += ["COPY requirements /tests/requirements", "RUN python3 -m venv /tests/venv"]
    pip = (
        "RUN /tests/venv/bin/python -m pip install --quiet --no-deps --require-hashes --no-build-isolation -r"
    )
    lines += [f"{pip} /tests/requirements/{name}.txt" for name in ("build", "runtime", "dev")]
    tag = engine.build_from(lines, f"{IMAGE}:tests")
    mounts = [f"--volume={ROOT / name}:/tests/{name}:ro" for name in ("src", "tests", "pyproject.toml")]
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/sandbox/test_escape.py", "-k", "strict")
    done = engine.call(
        *(
            "run",
            "--rm",
            "--sysctl=net.ipv6.conf.all.disable_ipv6=0",
            "--env=PYTHONPATH=/tests/src",
            "--workdir=/tests",
            "--memory=4g",
            "--pids-limit=4096",
        ),
        *(*HARDENED, PROFILE, *mounts, "--entrypoint=/tests/venv/bin/python", tag, *command),
        timeout=600,
    )
    closing = re.search(r"^(\d+) passed(?:, (\d+) deselected)? in", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout[-6000:]
    assert closing is not None, done.stdout[-2000:]
    assert int(closing[1]) > 100
