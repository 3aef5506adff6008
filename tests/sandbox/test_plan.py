"""Confinements as data, for every combination of policy and host. Starts nothing."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import resource
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.launch import Confinement, LaunchPlan
from mhnos_runtime.sandbox import (
    LEVELS,
    NETWORKS,
    HostFacts,
    Policy,
    Sandbox,
    Wish,
    confine,
    describe,
    narrow,
    places,
    seccomp,
    view,
    visible,
)
from mhnos_runtime.sandbox.facts import Fact
from mhnos_runtime.sandbox.policy import OFFERED, Level
from tests.sandbox.attempts import ATTEMPTS, OUT, outcome

FACTS = HostFacts(
    bubblewrap="/usr/bin/bwrap",
    namespaces=True,
    landlock=7,
    filters={"strict": "c3RyaWN0", "relaxed": "d2lkZQ==", "relaxed-no-network": "bmFycm93"},
    system=(("/usr", ""), ("/bin", "usr/bin"), ("/lib", "usr/lib"), ("/nix/store", "")),
    configuration=("/etc/alternatives/", "/etc/resolv.conf"),
    sized_tmpfs=True,
    disable_userns=True,
)
V1 = (("memory", "/cg/memory/x"), ("pids", "/cg/pids/x"), ("cpu", "/cg/cpu/x"))
V2 = (("unified+cpu", "/cg/x"),)
#: systemd gives users' own services no CPU controller on many machines.
V2_WITHOUT_CPU = (("unified", "/cg/x"),)

COMBINATIONS = [
    pytest.param(
        Policy(level, network, memory, tasks, user=user), replace(FACTS, landlock=abi, cgroups=groups)
    )
    for level, network, memory, tasks, user, abi, groups in itertools.product(
        LEVELS, NETWORKS, (0, 1 << 30), (0, 64), (None, (1234, 1235)), (1, 3, 7), ((), V1, V2)
    )
    if network in OFFERED[level]
]


@pytest.mark.parametrize(("policy", "facts"), COMBINATIONS)
def test_every_combination(policy: Policy, facts: HostFacts) -> None:
    confinement, rlimits = confine(Sandbox(policy, facts, "/srv/ws"), policy, "/a/b")
    strict, relaxed = policy.level == "strict", policy.level == "relaxed"
    assert confinement.user == policy.user
    assert confinement.no_new_privs is (policy.level != "none")
    assert bool(confinement.seccomp) is (policy.level != "none")
    assert (confinement.holder is not None) is strict
    assert confinement.directory == ("/workspace/a/b" if strict else "")
    wanted = {
        "unified+cpu",
        *(["memory"] if policy.memory_bytes else []),
        *(["pids"] if policy.tasks else []),
    }
    some = bool(policy.memory_bytes or policy.tasks)
    assert confinement.limits.cgroups == tuple(row for row in facts.cgroups if some and row[0] in wanted)
    assert confinement.limits.watched() is (not facts.cgroups and bool(policy.memory_bytes or policy.tasks))
    assert (resource.RLIMIT_CORE, 0, 0) in rlimits
    assert any(row[0] == resource.RLIMIT_NPROC for row in rlimits) is (strict and policy.tasks > 0)
    if strict:
        check_holder(confinement, policy)
    if relaxed:
        check_ruleset(confinement, policy, facts)
    given = describe(facts, policy)
    assert (given.level, given.network) == (policy.level, policy.network)
    assert given.uid == (policy.user[0] if policy.user else os.getuid())
    assert ("net" in given.namespaces) is (strict and policy.network != "host")


def check_holder(confinement: Confinement, policy: Policy) -> None:
    holder = confinement.holder
    assert holder is not None
    options = " ".join(holder.options)
    for each in ("user", "pid", "ipc", "uts", "cgroup-try"):
        assert f"--unshare-{each}" in options
    assert ("--unshare-net" in holder.options) is (policy.network == "none")
    assert bool(holder.network) is (policy.network == "loopback")
    assert "--die-with-parent" in holder.options
    # Nothing else is writable, and nothing of people or of the server is there.
    assert bound(holder.options) == [("/srv/ws", "/srv/ws"), ("/srv/ws", "/workspace")]
    sources = [
        holder.options[at + 1] for at, each in enumerate(holder.options) if each.startswith("--ro-bind")
    ]
    assert not any(source.startswith(("/home", "/root", "/var", "/run", "/srv")) for source in sources)
    assert ("/etc/resolv.conf" in holder.options) is (policy.network == "host")
    assert confinement.landlock is not None


def bound(options: Sequence[str]) -> list[tuple[str, str]]:
    """What is writable, as (path on the machine, path inside)."""
    return [(options[at + 1], options[at + 2]) for at, each in enumerate(options) if each == "--bind"]


@pytest.mark.parametrize(
    ("workspace", "inside"),
    [
        ("/home/ann/app", "/home/ann/app"),
        ("/home", "/home"),
        ("/var/lib/mhnos/ws", "/var/lib/mhnos/ws"),
        ("/tmp/a/ws", "/tmp/a/ws"),
        ("/var/tmp/a/ws", "/tmp/a/ws"),
        ("/usrlocal/ws", "/usrlocal/ws"),
        *((path, "") for path in ("/usr/src/ws", "/lib/ws", "/etc/ws", "/dev/shm/ws", "/proc/ws", "/nix")),
        *((path, "") for path in ("/tmp", "/var", "/var/tmp", "/run", "/", "/workspace", "/workspace/ws")),
        *((path, "") for path in ("/opt/node", "/opt", "/opt/node/ws")),
    ],
)
def test_strict_shows_the_workspace_by_its_own_path_where_nothing_else_is(
    workspace: str, inside: str
) -> None:
    """The scripts of a virtual environment that was made on the host contain that path."""
    sandbox = Sandbox(Policy("strict"), replace(FACTS, node="/opt/node/"), workspace)
    holder = confine(sandbox, sandbox.policy, "/")[0].holder
    assert holder is not None
    assert bound(holder.options) == [*([(workspace, inside)] if inside else []), (workspace, "/workspace")]
    assert places(sandbox) == (("/workspace", workspace) if inside else ("/workspace",))


@pytest.mark.parametrize("level", ["relaxed", "none"])
def test_elsewhere_it_has_that_path_alone(level: Level) -> None:
    assert places(Sandbox(Policy(level), FACTS, "/srv/ws")) == ("/srv/ws",)


@pytest.mark.parametrize(("level", "seen"), [("strict", False), ("relaxed", False), ("none", True)])
def test_a_program_of_the_machine_is_seen_where_its_folder_is(level: Level, seen: bool) -> None:
    sandbox = Sandbox(Policy(level), FACTS, "/srv/ws", ("/srv/engines/node/22",))
    for path in ("/usr/bin/python3", "/usr", "/bin/sh", "/srv/engines/node/22/bin/node"):
        assert visible(sandbox, path)
    for path in ("/home/ann/.pyenv/python3", "/usrlocal", "/srv/engines/node/220", "/"):
        assert visible(sandbox, path) is seen


def check_ruleset(confinement: Confinement, policy: Policy, facts: HostFacts) -> None:
    rules = confinement.landlock
    assert rules is not None
    write_file = 1 << 1
    writable = {path for path, access in rules.rules if access & write_file and not path.startswith("/dev/")}
    assert writable == {"/srv/ws"}
    # No terminal, no folder of everybody's: what is the process's own has no name before its start.
    devices = {path for path, _access in rules.rules if path.startswith("/dev/")}
    names = ("null", "zero", "full", "random", "urandom", "tty", "shm")
    assert devices == {f"/dev/{name}" for name in names}
    assert rules.own_terminal & write_file
    assert rules.private_tmp & write_file
    assert rules.own_folders == ()
    assert all(access & ~rules.handled_fs == 0 for _path, access in rules.rules)
    assert bool(rules.scoped) is (facts.landlock >= 6)
    assert bool(rules.handled_net) is (facts.landlock >= 4 and policy.network == "none")
    wide = base64.b64decode(confinement.seccomp) == b"wide"
    assert wide is (policy.network == "host")


@pytest.mark.parametrize(("policy", "facts"), COMBINATIONS[::7])
def test_a_plan_survives_its_way_to_the_supervisor(policy: Policy, facts: HostFacts) -> None:
    confinement, rlimits = confine(Sandbox(policy, facts, "/srv/ws"), policy, "/")
    plan = LaunchPlan(("/bin/true",), {}, confine=confinement, rlimits=rlimits)
    assert LaunchPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert HostFacts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("asked", [None, *NETWORKS])
def test_a_request_never_widens_the_network(level: str, network: str, asked: str | None) -> None:
    policy = Policy(level, network)  # type: ignore[arg-type]
    wanted = max(network, asked or network, key=NETWORKS.index)
    if asked is not None and wanted not in OFFERED[policy.level]:
        with pytest.raises(InvalidRequest):
            narrow(policy, Wish(network=asked))
        return
    assert narrow(policy, Wish(network=asked)).network == wanted


@pytest.mark.parametrize(
    ("allowed", "asked", "given"), [(0, 5, 5), (5, 0, 5), (5, None, 5), (5, 9, 5), (9, 5, 5), (5, -1, 5)]
)
def test_a_request_never_widens_a_limit(allowed: int, asked: int | None, given: int) -> None:
    policy = Policy("none", memory_bytes=allowed, tasks=allowed, cpu_percent=allowed, open_files=allowed)
    narrowed = narrow(policy, Wish(memory_bytes=asked, tasks=asked, cpu_percent=asked, open_files=asked))
    assert (narrowed.memory_bytes, narrowed.tasks, narrowed.cpu_percent, narrowed.open_files) == (given,) * 4


@pytest.mark.parametrize(("user", "uid"), [((1234, 1235), 1234), (None, os.getuid())])
def test_an_engine_writes_where_it_insists_on_it(user: tuple[int, int] | None, uid: int) -> None:
    policy = Policy("relaxed", user=user)
    engines = ("/opt/engines/node/22", "/opt/engines/lobster/1.0/")
    own_folders = (("other", "/tmp/other"), ("lobster", "/tmp/locks-{uid}"))
    confinement, _ = confine(Sandbox(policy, FACTS, "/srv/ws", engines, own_folders), policy, "/")
    assert confinement.landlock is not None
    (row,) = confinement.landlock.own_folders
    assert row == (f"/tmp/locks-{uid}", confinement.landlock.private_tmp)
    plan = LaunchPlan(("/bin/true",), {}, confine=confinement)
    assert LaunchPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_limits_keep_what_programs_expect() -> None:
    _confinement, rows = confine(Sandbox(Policy("none"), FACTS, "/srv/ws"), Policy("none"), "/")
    limits = {number: (soft, most) for number, soft, most in rows}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert limits[resource.RLIMIT_CORE] == (0, 0)
    assert limits[resource.RLIMIT_NOFILE] == (min(1024, hard) if hard != -1 else 1024, hard)


def test_processes_look_for_programs_only_where_they_can_read() -> None:
    path = "/home/you/.venv/bin:/usr/local/bin:/usr/bin:/home/me/bin:/bin:/usr/bin:/opt/node/bin"
    facts = replace(FACTS, node="/opt/node/")
    strict = view(Sandbox(Policy("strict"), facts, "/srv/ws"), path)
    assert strict.path == "/usr/local/bin:/usr/bin:/bin:/opt/node/bin"
    assert strict.workspace == "/workspace"
    assert view(Sandbox(Policy("none"), facts, "/srv/ws"), path).path == path


def test_the_filter_names_what_must_be_refused() -> None:
    calls = {rule.call for rule in seccomp.rules(network=True)}
    assert calls >= {
        *("mount", "umount2", "pivot_root", "setns", "unshare", "clone", "clone3", "ptrace"),
        *("process_vm_readv",),
        *("init_module", "kexec_load", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl"),
        *("open_by_handle_at", "add_key", "clock_settime", "reboot", "ioctl"),
    }
    assert calls >= {"process_madvise", "process_mrelease", "kcmp", "pidfd_getfd", "prctl", "socketcall"}


@pytest.mark.parametrize(("network", "allowed"), [(True, {1, 2, 10, 16}), (False, {1})])
def test_sockets_are_of_the_families_that_are_allowed_and_no_others(network: bool, allowed: set[int]) -> None:
    for call in ("socket", "socketpair"):
        named = [rule for rule in seccomp.rules(network=network) if rule.call == call]
        (above,) = (rule.above for rule in named if rule.above is not None)
        refused = {rule.tests[0][2] for rule in named if rule.tests}
        assert above == (0, max(allowed))
        assert set(range(max(allowed) + 1)) - refused == allowed


def test_where_others_can_be_named_only_the_caller_can_be_changed() -> None:
    rules = list(seccomp.rules(network=True, others=False))
    numbers = {(rule.call, rule.above) for rule in rules if rule.above is not None}
    calls = "prlimit64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler"
    assert {(call, (0, 0)) for call in (*calls.split(), "migrate_pages", "move_pages")} <= numbers
    for call, process in (("setpriority", 0), ("ioprio_set", 1)):
        assert {(call, (0, process)), (call, (1, 0))} <= numbers
    assert not {rule.call for rule in seccomp.rules(network=True)} & {"prlimit64", "setpriority"}


def test_no_call_is_left_out_because_the_library_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = seccomp._NUMBERS
    assert {"open_tree_attr", "clone3", "io_uring_setup"} <= numbers.keys()
    assert numbers.keys() <= {rule.call for rule in seccomp.rules(network=True, old_landlock=True)}
    library = seccomp.load_library()
    for name, number in numbers.items():
        assert library.seccomp_syscall_resolve_name(name.encode()) in (number, -1)
    compiled = base64.b64decode(seccomp.compile_filter(network=True))
    compared = {struct.unpack("=HBBI", compiled[at : at + 8])[3] for at in range(0, len(compiled), 8)}
    assert set(numbers.values()) - {numbers["openat2"]} <= compared
    monkeypatch.setattr(seccomp, "_NUMBERS", {})
    if library.seccomp_syscall_resolve_name(b"open_tree_attr") == -1:
        with pytest.raises(OSError, match="open_tree_attr"):
            seccomp.compile_filter(network=True)


@pytest.mark.parametrize(
    ("groups", "memory", "cpu"),
    [
        (V1, "cgroup v1", "cgroup v1"),
        (V1[:2], "cgroup v1", "none"),
        (V2, "cgroup v2", "cgroup v2"),
        (V2_WITHOUT_CPU, "cgroup v2", "none"),
        ((), "watchdog", "none"),
    ],
)
def test_a_limit_is_said_to_be_enforced_only_by_what_can(
    groups: tuple[tuple[str, str], ...], memory: str, cpu: str
) -> None:
    facts = replace(FACTS, cgroups=groups)
    policy = Policy("none", "host", 1 << 30, 64, cpu_percent=50)
    assert describe(facts, policy).limits == {"memory": memory, "tasks": memory, "cpu": cpu}
    only_cpu = Policy("none", "host", 0, 0, cpu_percent=50)
    confinement, _ = confine(Sandbox(only_cpu, facts, "/srv/ws"), only_cpu, "/")
    assert bool(confinement.limits.cgroups) is (cpu != "none")


def test_facts_that_are_missing_are_those_that_a_level_needs() -> None:
    rows = (
        Fact("bubblewrap", False, "not on this machine", "strict", "install it"),
        Fact("landlock", True, "ABI 7", "relaxed"),
        Fact("cgroups", False, "", "limits"),
    )
    facts = replace(FACTS, rows=rows)
    assert [fact.name for fact in facts.missing("strict")] == ["bubblewrap"]
    assert facts.missing("relaxed") == facts.missing("none") == []


def test_the_threat_model_names_what_gets_out() -> None:
    text = (Path(__file__).parents[2] / "docs" / "threat-model.md").read_text()
    table = text.partition("## What a level does not promise")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", table)) - {"host", "strict", "relaxed", "none"}
    assert named <= {attempt.name for attempt in ATTEMPTS}
    out = {each.name for each in ATTEMPTS for level in LEVELS if outcome(each, level, "host") == OUT}
    assert out <= named
