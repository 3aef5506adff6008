"""Processes within others, as a supervisor sees them that does not trust its server: what a hostile one asks
for, starts that fail, hand-overs and defects. What they share in real sandboxes stands in tests/sandbox."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.launch import FORBIDDEN_PLAN, Choice, Confinement, LaunchPlan, Wish
from mhnos_runtime.sandbox import HostFacts
from mhnos_runtime.sandbox.probe import probe
from tests.sandbox.conftest import require
from tests.supervisor.harness import ENVIRONMENT, Refused, Seen, Server, Supervised, alive, eventually
from tests.supervisor.test_defects import broken
from tests.supervisor.test_permit import (
    LAST,
    RETENTION,
    STALL_MS,
    TELL,
    USER,
    Scene,
    opened,
    plain,
)

STATUS = ("Uid:", "Gid:", "NoNewPrivs:", "Seccomp:", "CapEff:", "CapBnd:")
NAMESPACES = ("user", "mnt", "pid", "net", "ipc")
#: Ignores what it is asked; says so first.
DEAF = "trap '' HUP TERM; echo up; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def facts() -> HostFacts:
    # Groups of one place are for one runtime; here there are many.
    return replace(probe(USER), cgroups=())


def refused(server: Server, **plan: Any) -> dict[str, Any]:
    with pytest.raises(Refused) as error:
        server.sh("true", **plan)
    return error.value.body


# What a hostile server asks for


@pytest.mark.parametrize("pid", [1, 999, 1001, 2**31 - 1])
def test_nothing_runs_within_what_is_not_there(server: Server, pid: int) -> None:
    """Pids are the runtime's own: those of the system, also of other users, name nothing."""
    server.sh("exec cat")
    found = refused(server, within=pid)
    assert (found["code"], found["retry"]) == ("not-running", False)
    assert "ps" in found["hint"]


@pytest.mark.parametrize("pid", [-1, 2**31, "1000", None, True, [1000]])
def test_what_is_no_pid_is_malformed(server: Server, pid: object) -> None:
    server.sh("exec cat")
    assert refused(server, within=pid)["code"] == "invalid-argument"


def test_nothing_runs_within_what_has_ended_or_is_ending(server: Server) -> None:
    host = server.sh(DEAF)
    server.said(host, b"up")
    server.kill(host, signal.SIGTERM)
    assert refused(server, within=host.pid)["code"] == "not-running"
    server.kill(host, signal.SIGKILL)
    server.ended(host)
    assert refused(server, within=host.pid)["code"] == "not-running"


def test_nothing_runs_within_a_start_that_is_under_way(server: Server) -> None:
    """Its pid can be guessed; it may still fail."""
    first = server.request(("/bin/sleep", "60"))
    second = server.request(("/bin/true",), within=1000)
    assert server.answer(first).pid == 1000
    with contextlib.suppress(Refused):  # unless it was fast
        server.ended(server.answer(second))


def in_scene(scene: Scene, script: str = "echo up; exec cat", **plan: Any) -> Seen:
    fd = scene.folder()
    whole = {"env": ENVIRONMENT, "retention_bytes": RETENTION, "stall_ms": STALL_MS, "escalation": LAST}
    try:
        sent = {**whole, "argv": ["/bin/sh", "-c", script], **plan}
        return scene.server.answer(scene.server.ask_raw(_plan(sent), [fd]))
    finally:
        os.close(fd)


def _plan(parts: dict[str, Any]) -> dict[str, Any]:
    return {**LaunchPlan(("/bin/true",), {}).to_request(), **parts}


@pytest.mark.parametrize("level", ["strict", "relaxed", "none"])
def test_a_server_chooses_nothing_of_what_is_the_other_one_s(
    facts: HostFacts, tmp_path: Path, level: str
) -> None:
    require(facts, level)
    with opened(level, "host", facts, tmp_path) as scene:
        host = in_scene(scene)
        fd = scene.folder()
        chosen: list[dict[str, Any]] = [
            plain(wish=Wish("host")),
            plain(wish=Wish(tasks=1 << 20)),
            plain(wish=Wish(memory_bytes=0)),
            plain(engines=(f"{scene.allowed.engines_dir}/node/1",)),
            plain(cwd="/../../etc"),
            {"confine": Confinement().to_dict()},
            {"rlimits": []},
        ]
        for plan in chosen:
            with pytest.raises(Refused) as error:
                scene.send({"within": host.pid, **plan}, fd)
            assert error.value.body["code"] == FORBIDDEN_PLAN
        outside = os.open(scene.outside, os.O_PATH)
        with pytest.raises(Refused) as error:
            scene.send({"within": host.pid}, outside)
        assert error.value.body["code"] == FORBIDDEN_PLAN
        os.close(outside)
        os.close(fd)


@pytest.mark.parametrize("level", ["strict", "relaxed", "none"])
def test_it_is_confined_as_the_other_one_is(facts: HostFacts, tmp_path: Path, level: str) -> None:
    """Also where that one is narrower than the policy; and after a hand-over."""
    require(facts, level)
    with opened(level, "host", facts, tmp_path) as scene:
        narrow = Wish("none" if level != "none" else None, open_files=123, file_bytes=1 << 19)
        host = in_scene(scene, f"{TELL}; exec cat", **plain(wish=narrow))
        own = scene.server.said(host, b"lo:" if level == "strict" else b"limits").decode()
        fd = scene.folder()

        def told(within: Scene) -> dict[str, str]:
            found = within.send({"within": host.pid}, fd)
            return {name: found[name] for name in (*STATUS, *NAMESPACES, "limits")}

        first = told(scene)
        assert first["limits"].split()[0] == "123"
        assert f"limits {first['limits']}" in own
        for each in NAMESPACES:
            assert f"{each} {first[each]}" in own
        for name in STATUS:
            assert first[name] in own, name
        os.kill(scene.supervisor.pid, signal.SIGHUP)
        assert told(replace(scene, server=scene.supervisor.serve())) == first
        os.close(fd)


def test_no_socket_of_another_network_comes_in(facts: HostFacts, tmp_path: Path) -> None:
    """A program could hand it on to those inside, whose filter lets them connect it to anywhere."""
    require(facts, "strict")
    with opened("strict", "host", facts, tmp_path) as scene, socket.create_server(("127.0.0.1", 0)) as sock:
        fd = scene.folder()
        outside = in_scene(scene)
        assert "Uid:" in scene.send({"within": outside.pid}, fd, sock.fileno())
        for network in ("loopback", "none"):
            inside = in_scene(scene, **plain(wish=Wish(network)))
            with pytest.raises(Refused) as error:
                scene.send({"within": inside.pid}, fd, sock.fileno())
            assert error.value.body["code"] == FORBIDDEN_PLAN
        os.close(fd)


# Starts and ends


def test_a_start_within_that_fails_leaves_nothing(supervisor: Supervised) -> None:
    server = supervisor.serve()
    host = server.sh("exec cat")
    before = len(supervisor.descriptors())
    for _ in range(3):
        with pytest.raises(Refused) as error:
            server.answer(server.request(("/no/such",), within=host.pid))
        assert error.value.body["code"] == "not-found"
    # One more may be that of the child that waits for the next start.
    eventually(lambda: len(supervisor.descriptors()) <= before + 1, "the end of what each start had open")
    server.kill(host, signal.SIGTERM)
    assert server.ended(host).reason == "killed"


def test_the_other_one_s_end_comes_last(server: Server) -> None:
    """And neither is the end of its main process alone an end, nor do signals that do not end go on."""
    host = server.sh("trap 'echo poked' USR1; echo up; while :; do sleep 0.05; done")
    guest = server.sh(DEAF, within=host.pid)
    quick = server.sh("exec sleep 60", within=host.pid)
    server.said(host, b"up")
    server.said(guest, b"up")
    server.kill(host, signal.SIGUSR1, escalate=False)
    server.said(host, b"poked")
    assert alive(quick.os_pid)
    server.kill(host, signal.SIGKILL)
    server.ended(host)
    exits = [body["pid"] for body in server.events if body["event"] == "exited"]
    assert exits == [quick.pid, guest.pid, host.pid]
    assert (quick.exit and quick.exit.signal) == "SIGHUP"
    assert (guest.exit and guest.exit.signal) == "SIGKILL"
    for each in (quick, guest):
        assert each.exit is not None
        assert each.exit.evidence.endswith(f"after SIGTERM was sent (ended with process {host.pid})")


def test_one_that_was_being_ended_keeps_its_own_reason(server: Server) -> None:
    host = server.sh("exec cat")
    guest = server.sh(DEAF, within=host.pid)
    server.said(guest, b"up")
    server.kill(guest, signal.SIGTERM, "idle")
    server.kill(host, signal.SIGKILL)
    server.ended(host)
    assert guest.exit is not None
    assert (guest.exit.reason, guest.exit.signal) == ("idle", "SIGKILL")


def test_a_hand_over_between_the_two_ends(supervisor: Supervised) -> None:
    """The one is a record without a main process then, the other still has its time."""
    server = supervisor.serve()
    host = server.sh("exec cat")
    guest = server.sh(DEAF, within=host.pid)
    server.said(guest, b"up")
    server.kill(host, signal.SIGKILL)
    eventually(lambda: not alive(host.os_pid), "the end of the main process")
    os.kill(supervisor.pid, signal.SIGHUP)
    second = supervisor.serve()
    ended = second.ended(second.processes[host.pid])
    assert ended.signal == "SIGKILL"
    last = second.processes[guest.pid].exit
    assert last is not None
    assert f"ended with process {host.pid}" in last.evidence


@pytest.mark.parametrize("where", ["process Process main_exited", "process Process _exit_record"])
def test_a_defect_in_the_other_one_ends_both(tmp_path: Path, where: str) -> None:
    with broken(tmp_path, where) as supervisor:
        server = supervisor.serve()
        host = server.sh("exec cat")
        guest = server.sh("exec cat", within=host.pid)
        os.kill(host.os_pid, signal.SIGKILL)
        assert server.ended(host).reason == "lost"
        server.ended(guest)
        eventually(lambda: not alive(guest.os_pid), "its end")
        again = supervisor.serve_again()
        for pid in (host.pid, guest.pid):
            again.ask("forget", again.processes[pid])
        eventually(lambda: supervisor.files() == [], "the removal of both")


def test_what_a_server_cannot_take_over_ends_alone(server: Server) -> None:
    host = server.sh("exec cat")
    guest = server.sh("exec cat", within=host.pid)
    server.ask("discard", guest)
    eventually(lambda: not alive(guest.os_pid), "its end")
    host.write(b"goes on\n")
    server.said(host, b"goes on")


def test_choices_are_kept_of_those_that_can_have_some_within() -> None:
    plan = LaunchPlan(("/bin/true",), {"A": "1"}, choice=Choice(Wish("none")), confine=Confinement((5, 6)))
    assert plan.after_start() == plan
    inside = replace(plan, within=1000).after_start()
    assert (inside.env, inside.choice, inside.confine) == ({}, Choice(), Confinement())
