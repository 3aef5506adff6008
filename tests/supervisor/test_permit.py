"""A server that was taken over sends whatever it likes: what runs is as confined as the operator says, or
nothing runs."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.launch import FIRST_HANDED, FORBIDDEN_PLAN, Choice, Confinement, LaunchPlan, Wish
from mhnos_runtime.sandbox import Allowed, HostFacts, Policy, Sandbox
from mhnos_runtime.sandbox.probe import probe
from tests.sandbox.conftest import place, require
from tests.supervisor.harness import ENVIRONMENT, Refused, Server, Supervised, supervised

USER = (60_711, 60_712) if os.geteuid() == 0 else None
RETENTION, STALL_MS, GRACE_MS = 1 << 18, 5_000, 2_000
LAST = ((500, 9),)
TASKS, OPEN_FILES, FILE_BYTES, CPU_SECONDS, MEMORY = 50, 300, 1 << 20, 30, 256 << 20

#: What the program is, told from inside.
TELL = (
    "grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status;"
    "for each in user mnt pid net ipc; do echo $each $(readlink /proc/self/ns/$each); done;"
    "echo limits $(ulimit -Hn) $(ulimit -Hf) $(ulimit -Ht) $(ulimit -Hc);"
    "ls / ; cat /proc/net/dev"
)


@dataclass
class Scene:
    """A supervisor with a policy, its hostile server, and folders. listener: the runtime's own."""

    supervisor: Supervised
    server: Server
    allowed: Allowed
    workspace: Path
    outside: Path
    listener: socket.socket

    def send(self, plan: dict[str, Any], *descriptors: int, script: str = TELL) -> dict[str, str]:
        """Ask for the plan with these changes; what the program tells of itself. Raises Refused."""
        whole = LaunchPlan(
            ("/bin/sh", "-c", script),
            ENVIRONMENT,
            retention_bytes=RETENTION,
            stall_ms=STALL_MS,
            escalation=LAST,
            handed=max(0, len(descriptors) - 1),
        )
        request = self.server.ask_raw({**whole.to_request(), **plan}, list(descriptors))
        process = self.server.answer(request)
        self.server.ended(process)
        rows = (line.split(None, 1) for line in process.output().decode().splitlines() if line.strip())
        return {row[0]: row[1] if len(row) > 1 else "" for row in rows}

    def folder(self) -> int:
        return os.open(self.workspace, os.O_PATH | os.O_DIRECTORY)


@pytest.fixture(scope="module")
def facts() -> HostFacts:
    # Groups of one place are for one runtime; here there are many.
    return replace(probe(USER), cgroups=())


@pytest.fixture(params=["strict", "relaxed", "none"])
def level(request: pytest.FixtureRequest, facts: HostFacts) -> str:
    require(facts, request.param)
    return str(request.param)


@pytest.fixture
def scene(level: str, facts: HostFacts, tmp_path: Path) -> Iterator[Scene]:
    with opened(level, "host", facts, tmp_path) as made:
        yield made


@contextlib.contextmanager
def opened(level: str, network: str, facts: HostFacts, tmp_path: Path) -> Iterator[Scene]:
    home = place()
    workspace, outside = home / "workspace", home / "outside"
    workspace.mkdir()
    outside.mkdir()
    (home / "engines" / "node").mkdir(parents=True)
    (home / "engines" / "node" / "link").symlink_to(outside)
    if USER is not None:
        os.chown(workspace, *USER)
    policy = Policy(level, network, MEMORY, TASKS, 0, CPU_SECONDS, FILE_BYTES, OPEN_FILES, USER)  # type: ignore[arg-type]
    sandbox = Sandbox(policy, facts, str(workspace))
    allowed = Allowed(sandbox, str(home / "engines"), 5, RETENTION, STALL_MS, GRACE_MS)
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            supervised(tmp_path, allowed=allowed, listeners=[listener.fileno()]) as running,
        ):
            yield Scene(running, running.serve(), allowed, workspace, outside, listener)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def check(told: dict[str, str], level: str) -> None:
    """What a program tells of itself is as confined as the policy says."""
    uid, gid = USER or (os.getuid(), os.getgid())
    inside = {"Uid:": [str(uid)] * 4, "Gid:": [str(gid)] * 4}
    assert {name: told[name].split() for name in inside} == inside
    if USER is not None:
        assert told["Groups:"].split() == []
    assert told["limits"].split()[:4] == [str(OPEN_FILES), str(FILE_BYTES >> 9), str(CPU_SECONDS + 1), "0"]
    if level == "none":
        return
    assert (told["NoNewPrivs:"], told["Seccomp:"]) == ("1", "2")
    assert int(told["CapEff:"], 16) == int(told["CapBnd:"], 16) == 0 or USER is None
    for name in ("user", "mnt", "pid", "ipc"):
        assert (told[name] != os.readlink(f"/proc/self/ns/{name}")) is (level == "strict"), name
    assert "root" not in told


def plain(**choice: Any) -> dict[str, Any]:
    return {"choice": Choice(**choice).to_dict()}


WIDE = Wish("host", 1 << 50, 1 << 30, 10_000, 1 << 30, 1 << 50, 1 << 20)

#: Plans that may run, for which the policy holds all the same.
NARROWED: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "limits beyond the policy's": plain(wish=WIDE),
    "no limits at all": plain(wish=Wish(None, 0, 0, 0, 0, 0, 0)),
    "variables of the loader": {"env": {**ENVIRONMENT, "LD_PRELOAD": "/workspace/x.so", "BASH_ENV": "/x"}},
}


def test_the_policy_holds(scene: Scene, level: str) -> None:
    fd = scene.folder()
    for plan in NARROWED.values():
        check(scene.send(plan, fd), level)
    os.close(fd)


def holder(**parts: Any) -> dict[str, Any]:
    made = {"program": "/bin/sh", "options": ["-c", "id"], "files": [], "command": ["cat"], "network": []}
    return {"confine": {**Confinement().to_dict(), "holder": {**made, **parts}}}


#: Plans that no confinement makes harmless. ENGINES stands for the engines' folder.
FORBIDDEN: dict[str, dict[str, Any]] = {
    "nothing that confines it": {"confine": Confinement().to_dict()},
    "root": {"confine": {**Confinement().to_dict(), "user": [0, 0]}},
    "a program of its own as holder": holder(),
    "everything bound": holder(program="/usr/bin/bwrap", options=["--bind", "/", "/"]),
    "no resource limits": {"rlimits": []},
    "its own resource limits": {"rlimits": [[resource.RLIMIT_NOFILE, 1 << 20, 1 << 20]]},
    "a directory above": plain(cwd="/../../etc"),
    "a directory that is none": plain(cwd="etc"),
    "root's home as an engine": plain(engines=("/root",)),
    "everything as an engine": plain(engines=("/",)),
    "no path as an engine": plain(engines=("",)),
    "all engines as one": plain(engines=("ENGINES",)),
    "what lies above engines": plain(engines=("ENGINES/..", "ENGINES/../outside")),
    "an engine's own parent": plain(engines=("ENGINES/node/..",)),
    "below an engine": plain(engines=("ENGINES/node/1/bin",)),
    "beside engines": plain(engines=("ENGINES-of-mine/node/1",)),
    "a link as an engine": plain(engines=("ENGINES/node/link",)),
    "a network that there is not": plain(wish=Wish("everything")),
    "more text than an answer carries": plain(wish=Wish("\x7f" * 140_000)),
    "more output than is kept": {"retention_bytes": RETENTION + 1},
    "held up for longer": {"stall_ms": STALL_MS + 1},
    "never killed": {"escalation": [[0, 15]]},
    "killed too late": {"escalation": [[GRACE_MS + 1, 9]]},
}

#: Plans that are none, which shows before the policy is looked at.
MALFORMED: dict[str, dict[str, Any]] = {
    "a NUL": plain(cwd="/a\0b"),
    "negative limits": plain(wish=Wish(None, -1, -1, -1, -1, -1, -1)),
    "limits beyond all numbers": plain(wish=Wish(None, 1 << 60)),
    "less than none": {"retention_bytes": -1},
    "killed before it began": {"escalation": [[-1, 9]]},
    "more than can be handed over": {"handed": 25},
    "less than nothing handed over": {"handed": -1},
}


def test_nothing_runs(scene: Scene) -> None:
    fd = scene.folder()
    for plan in FORBIDDEN.values():
        sent = dict(plan)
        if "choice" in sent:
            folder, named = scene.allowed.engines_dir, sent["choice"]["engines"]
            sent["choice"] = {
                **sent["choice"],
                "engines": [each.replace("ENGINES", folder) for each in named],
            }
        assert refusal(scene, sent, fd) == FORBIDDEN_PLAN
    for plan in MALFORMED.values():
        assert refusal(scene, plan, *[fd] * (1 + max(0, plan.get("handed", 0)))) == "invalid-argument"
    os.close(fd)
    assert scene.server.processes == {}
    assert "a plan was refused" in scene.supervisor.log


def refusal(scene: Scene, plan: dict[str, Any], *given: int) -> str:
    """The code with which a plan is refused, for good."""
    with pytest.raises(Refused) as refused:
        scene.send(plan, *given)
    assert not refused.value.body["retry"]
    return str(refused.value.body["code"])


def refused_as_forbidden(scene: Scene, plan: dict[str, Any], *given: int) -> None:
    assert refusal(scene, plan, *given) == FORBIDDEN_PLAN
    assert "a plan was refused" in scene.supervisor.log


def test_a_program_starts_in_the_workspace_only(scene: Scene) -> None:
    file, link = scene.workspace / "file", scene.workspace / "link"
    file.write_text("x")
    link.symlink_to(scene.outside)
    for path in (Path("/root"), Path("/"), scene.outside, link, file, Path(scene.allowed.engines_dir)):
        fd = os.open(path, os.O_PATH)
        refused_as_forbidden(scene, {}, fd)
        os.close(fd)


def descriptors(scene: Scene) -> list[Callable[[], socket.socket | int]]:
    """Files, folders, memory that could still change, processes, and all sockets but the one kind."""

    def made(family: int, kind: int, address: Any, listens: bool) -> socket.socket:
        sock = socket.socket(family, kind)
        sock.bind(address)
        if listens:
            sock.listen()
        return sock

    tcp, loopback = socket.AF_INET, ("127.0.0.1", 0)
    return [
        lambda: os.open("/etc/passwd", os.O_RDONLY),
        lambda: os.open("/", os.O_PATH),
        lambda: os.open("/root", os.O_RDONLY | os.O_DIRECTORY),
        lambda: os.memfd_create("x"),
        lambda: os.open("/dev/shm", os.O_RDWR | os.O_TMPFILE),
        lambda: os.pidfd_open(os.getpid()),
        lambda: os.open("/proc/self/ns/mnt", os.O_RDONLY),
        lambda: made(socket.AF_UNIX, socket.SOCK_STREAM, str(scene.outside / "s"), listens=True),
        lambda: os.open(scene.outside / "s", os.O_PATH),
        lambda: made(tcp, socket.SOCK_STREAM, loopback, listens=False),
        lambda: made(tcp, socket.SOCK_STREAM, ("0.0.0.0", 0), listens=True),
        lambda: made(tcp, socket.SOCK_DGRAM, loopback, listens=False),
        lambda: os.dup(scene.listener.fileno()),
    ]


def test_only_listening_sockets_and_sealed_memory_are_handed_over(scene: Scene) -> None:
    folder = scene.folder()
    for make in descriptors(scene):
        found = make()
        fd = found if isinstance(found, int) else found.detach()
        refused_as_forbidden(scene, {}, folder, fd)
        os.close(fd)
    os.close(folder)


def test_no_descriptor_comes_by_the_control_socket(scene: Scene) -> None:
    """The program that a hostile server has started takes whatever it is sent there."""
    fd = scene.folder()
    script = f"while :; do test -e /proc/self/fd/{FIRST_HANDED} && sleep 60; done"
    plan = LaunchPlan(
        ("/bin/sh", "-c", script), ENVIRONMENT, None, RETENTION, STALL_MS, control=True, escalation=LAST
    )
    process = scene.server.answer(scene.server.ask_raw(plan.to_request(), [fd]))
    with socket.socket(fileno=process.control_fd) as control, pytest.raises(BrokenPipeError):
        socket.send_fds(control, [b"x"], [fd])
    process.control_fd = -1
    os.close(fd)


def test_a_socket_that_comes_along_narrows_the_filter(facts: HostFacts, tmp_path: Path) -> None:
    """The supervisor sees for itself whether it is one: the server does not say so."""
    require(facts, "strict")
    with opened("strict", "none", facts, tmp_path) as scene:
        script = "exec 2>&1; python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 1), 3)'"
        fd = scene.folder()
        assert any("refused" in text for text in scene.send({}, fd, script=script).values())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            told = scene.send({}, fd, listener.fileno(), script=script)
        assert any("Permission denied" in text for text in told.values())
        os.close(fd)


@pytest.mark.parametrize("network", ["none", "loopback"])
@pytest.mark.parametrize("wish", ["host", None])
def test_a_network_is_never_wider(facts: HostFacts, tmp_path: Path, network: str, wish: str | None) -> None:
    require(facts, "strict")
    with opened("strict", network, facts, tmp_path) as scene:
        fd = scene.folder()
        told = scene.send(plain(wish=Wish(wish)), fd)
        check(told, "strict")
        assert told["net"] != os.readlink("/proc/self/ns/net")
        assert [name for name in told if name.startswith(("eth", "en", "wl"))] == []
        os.close(fd)


def test_no_more_run_than_are_allowed(facts: HostFacts, tmp_path: Path) -> None:
    with opened("none", "host", facts, tmp_path) as scene:
        plan = LaunchPlan(("/bin/sleep", "60"), ENVIRONMENT, None, RETENTION, STALL_MS, escalation=LAST)
        fd = scene.folder()
        requests = [scene.server.ask_raw(plan.to_request(), [fd]) for _ in range(scene.allowed.processes + 1)]
        for request in requests[:-1]:
            scene.server.answer(request)
        with pytest.raises(Refused) as refused:
            scene.server.answer(requests[-1])
        assert refused.value.body["code"] == "too-many-processes"
        os.close(fd)


def test_the_policy_stays_over_a_hand_over(facts: HostFacts, tmp_path: Path) -> None:
    require(facts, "relaxed")
    with opened("relaxed", "host", facts, tmp_path) as scene:
        os.kill(scene.supervisor.pid, 1)
        second = replace(scene, server=scene.supervisor.serve())
        fd = second.folder()
        refused_as_forbidden(second, FORBIDDEN["nothing that confines it"], fd)
        check(second.send(NARROWED["limits beyond the policy's"], fd), "relaxed")
        os.close(fd)
