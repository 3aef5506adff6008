"""What hosts can give: the probe, `doctor`, refusals, and whom processes run as. Knows the command line."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mhnos_runtime.config import ConfigError, load
from mhnos_runtime.engines import CATALOGUE
from mhnos_runtime.sandbox import cgroups
from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.sandbox.probe import reachable
from mhnos_runtime.testing import TestServer
from tests.server.client import connect

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
MHNOS = (sys.executable, "-m", "mhnos_runtime")


def folder_with(folder: Path, *programs: str) -> str:
    """A PATH on which only these are found."""
    found = folder / "bin"
    found.mkdir()
    for name in programs:
        (found / name).symlink_to(shutil.which(name) or "/missing")
    return str(found)


def run(*arguments: str, prefix: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [*prefix, *MHNOS, *arguments], env=environment, capture_output=True, text=True, timeout=50
    )


#: A user namespace in which the caller looks like an ordinary user, and one that can make no further one.
AS_ORDINARY = ("unshare", "--user", "--map-user=4321", "--map-group=4321")
IN_CONTAINER = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    *('echo 1 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh", *AS_ORDINARY),
)


def can(prefix: tuple[str, ...]) -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    )


def test_doctor_tells_what_the_probe_found(facts: HostFacts) -> None:
    done = run("doctor", "--json")
    told = json.loads(done.stdout)
    # Engines, and what depends on settings, are not for the probe to find out.
    others = {*CATALOGUE, "own files", "token"}
    found = {row["name"]: row["found"] for row in told["facts"] if row["name"] not in others}
    assert found == {fact.name: fact.found for fact in facts.rows}
    assert {row["name"] for row in told["facts"]} > others
    assert all(row["found"] or row["how"] for row in told["facts"])
    for level in ("strict", "relaxed", "none"):
        assert told["levels"][level]["available"] is (not facts.missing(level))
    assert (done.returncode == 0) is told["levels"][told["configured"]]["available"]
    assert "bubblewrap" in run("doctor").stdout


def test_doctor_says_what_an_older_landlock_leaves_open() -> None:
    """Before Linux 6.12 a process with the machine's network reaches its abstract sockets."""
    old = str(Path(__file__).parent / "old_landlock")
    told = json.loads(run("doctor", "--json", PYTHONPATH=old).stdout)
    (row,) = [row for row in told["facts"] if row["name"] == "abstract socket scope"]
    assert row["found"] is False
    assert "X11" in row["detail"]
    assert "MHNOS_NETWORK=loopback" in row["how"]
    assert "abstract socket scope is missing" in run("doctor", PYTHONPATH=old).stdout


def test_without_bubblewrap(folder: Path) -> None:
    done = run("doctor", "--json", PATH=folder_with(folder, "true"), MHNOS_SANDBOX="strict")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert "bubblewrap" in told["levels"]["strict"]["missing"]
    assert told["levels"]["none"]["available"]
    workspace = folder / "workspace"
    workspace.mkdir()
    serving = run(
        "serve",
        "--port",
        "0",
        PATH=str(folder / "bin"),
        MHNOS_WORKSPACE=str(workspace),
        MHNOS_SANDBOX="strict",
    )
    assert serving.returncode != 0
    assert "which this machine cannot give" in serving.stderr
    assert "install the package bubblewrap" in serving.stderr


@pytest.mark.skipif(not can(IN_CONTAINER), reason="this machine cannot imitate a hardened container")
def test_in_a_hardened_container() -> None:
    """Where user namespaces cannot be made, strict refuses with the reason, and relaxed works."""
    told = json.loads(run("doctor", "--json", prefix=IN_CONTAINER).stdout)
    assert told["levels"]["strict"]["missing"] == ["user namespaces"]
    assert told["levels"]["relaxed"]["available"]
    row = next(row for row in told["facts"] if row["name"] == "user namespaces")
    assert "relaxed" in row["how"]


@pytest.mark.skipif(not can(AS_ORDINARY), reason="this machine cannot imitate another user")
@pytest.mark.parametrize("level", ["strict", "relaxed", "none"])
async def test_as_an_ordinary_user(level: str, folder: Path, facts: HostFacts) -> None:
    """Whoever runs the test: inside it is a user without privileges, and no other user is at hand."""
    if facts.missing(level):
        pytest.skip("this host does not offer the level")
    prefix = AS_ORDINARY
    server = TestServer(folder / "server", "--sandbox", level, prefix=prefix)
    async with server, connect(server) as client:
        pid = await client.run("id -u; echo x > made; cat made; grep -c . /proc/self/uid_map")
        ended = await client.exit(pid)
        assert ended["code"] == 0
        assert client.output(pid).split()[:2] == ["4321", "x"]
        (row,) = (await client.ask("list", all=True))["processes"]
        assert (row["sandbox"], row["isolation"]["uid"]) == (level, 4321)
        terminal = await client.spawn("shell", "tty", pty=True)
        await client.text(terminal, "/dev/pts/")


@root_only
async def test_root_runs_processes_as_someone_else(folder: Path) -> None:
    workspace = folder / "server" / "workspace"
    workspace.mkdir(parents=True)
    async with TestServer(folder / "server", "--sandbox", "none") as server, connect(server) as client:
        pid = await client.run("id -u; echo y >> mine && cat mine")
        await client.exit(pid)
        uid, *rest = client.output(pid).split()
        assert rest == ["y"]
        assert int(uid) != 0
        assert workspace.stat().st_uid == (workspace / "mine").stat().st_uid == int(uid)
        assert "the workspace is handed to" in server.greeting


@root_only
def test_a_project_of_root_s_keeps_its_owner(folder: Path) -> None:
    """`serve ~/project` gave root's own project, all of it, to another user."""
    project = folder / "project"
    project.mkdir()
    (project / "mine").write_text("x")
    (folder / "state").mkdir(mode=0o700)
    flags = ("--sandbox", "none", "--port", "0", "--state-dir", str(folder / "state"))
    refused = run("serve", *flags, str(project))
    assert refused.returncode == 1
    assert "belongs to root and is not empty" in refused.stderr
    assert project.stat().st_uid == (project / "mine").stat().st_uid == 0
    # What it says to do is enough.
    chown = refused.stderr.partition("`")[2].partition("`")[0]
    subprocess.run(["sh", "-c", chown], check=True)
    started = run("serve", *flags, "-d", str(project))
    assert (started.returncode, started.stderr) == (0, "")
    assert f"as uid {project.stat().st_uid}, the workspace's owner" in started.stdout
    assert run("stop-server", MHNOS_STATE_DIR=str(folder / "state")).returncode == 0


@root_only
def test_the_default_workspace_is_handed_over_whole(folder: Path) -> None:
    """What root put there is for the processes."""
    workspace = folder / "mhnos-workspace"
    workspace.mkdir()
    (workspace / "mine").write_text("x")
    code = (
        "from mhnos_runtime.cli import host\nfrom mhnos_runtime.config import load\n"
        "settings = load()[0]\nuser = host.choose_user(settings)\nassert user.hand_over, user\n"
        "host.hand_over(settings.workspace, user.ids)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MHNOS_")}
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(folder)}, check=True)
    assert workspace.stat().st_uid == (workspace / "mine").stat().st_uid != 0


@root_only
@pytest.mark.parametrize(("named", "expected"), [("4321:4322", (4321, 4322)), ("nobody", None)])
async def test_user_setting(folder: Path, named: str, expected: tuple[int, int] | None) -> None:
    entry = pwd.getpwnam("nobody")
    async with (
        TestServer(folder / "server", "--sandbox", "none", "--user", named) as server,
        connect(server) as client,
    ):
        pid = await client.run("id -u; id -g; id -G")
        await client.exit(pid)
        uid, gid = expected or (entry.pw_uid, entry.pw_gid)
        assert client.output(pid).split() == [str(uid), str(gid), str(gid)]


@root_only
async def test_the_owner_of_the_workspace_is_the_first_choice(folder: Path) -> None:
    workspace = folder / "server" / "workspace"
    workspace.mkdir(parents=True)
    os.chown(workspace, 4321, 4322)
    async with TestServer(folder / "server", "--sandbox", "none") as server, connect(server) as client:
        pid = await client.run("id -u; id -g")
        await client.exit(pid)
        assert client.output(pid).split() == ["4321", "4322"]


@root_only
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sandbox", "strict", "--allow-root"), "only there processes may run as root"),
        (("--sandbox", "relaxed", "--allow-root"), "only there processes may run as root"),
        (("--user", "0"), "and not root"),
        (("--user", "root"), "and not root"),
        (("--user", "no-such-user"), "expected the name of a user"),
        (("--sandbox", "none", "--network", "none"), "which sandbox none cannot give; expected host"),
        (("--sandbox", "relaxed", "--network", "loopback"), "expected host or none"),
    ],
)
def test_what_root_cannot_have(folder: Path, flags: tuple[str, ...], message: str) -> None:
    done = run(
        "serve", "--port", "0", "--workspace", str(folder), "--state-dir", str(folder / "../state-x"), *flags
    )
    assert done.returncode != 0
    assert message in done.stderr


@root_only
def test_a_workspace_that_the_user_cannot_enter_is_refused(folder: Path) -> None:
    (folder / "closed" / "workspace").mkdir(parents=True)
    (folder / "closed").chmod(0o700)
    assert reachable(folder / "closed" / "workspace" / "x", (4321, 4321)) == str(folder / "closed")
    done = run(
        "serve", "--workspace", str(folder / "closed" / "workspace"), "--state-dir", str(folder / "state")
    )
    assert done.returncode != 0
    assert f"{folder / 'closed'} is closed to them" in done.stderr


@root_only
def test_the_system_is_never_handed_over() -> None:
    done = run("serve", "--workspace", "/usr", "--state-dir", "/tmp/mhnos-never")
    assert done.returncode != 0
    assert "is part of the system" in done.stderr


def test_a_state_directory_that_processes_could_read_is_refused(folder: Path, facts: HostFacts) -> None:
    if facts.missing("strict"):
        pytest.skip("this host does not offer strict")
    done = run(
        "serve", "--sandbox", "strict", "--workspace", str(folder), "--state-dir", str(folder / "state")
    )
    assert done.returncode != 0
    assert "lies in workspace" in done.stderr


def test_nobody_but_root_can_choose_a_user() -> None:
    from mhnos_runtime.cli.host import choose_user

    if os.geteuid() == 0:
        pytest.skip("root can")
    settings, _ = load({"user": "root", "workspace": "/"})
    with pytest.raises(ConfigError, match="only root can run processes as someone else"):
        choose_user(settings)


# Where control groups can be made, by what /proc says


def tree(folder: Path, *, controllers: str, enabled: str, procs: str) -> Path:
    group = folder / "app.slice" / "unit"
    group.mkdir(parents=True)
    for directory, subtree in ((folder, ""), (group.parent, enabled), (group, "")):
        (directory / "cgroup.procs").write_text("")
        (directory / "cgroup.controllers").write_text(controllers)
        (directory / "cgroup.subtree_control").write_text(subtree)
    (group / "cgroup.procs").write_text(procs)
    return group


def mounts(folder: Path, kind: str, options: str) -> str:
    return f"30 23 0:26 / {folder} rw - {kind} {kind} rw,{options}\n"


def test_v2_in_a_service_of_its_own(folder: Path) -> None:
    group = tree(folder, controllers="cpu memory pids", enabled="", procs="77\n")
    places, _ = cgroups.find("0::/app.slice/unit\n", mounts(folder, "cgroup2", ""), pid=77)
    assert places == [cgroups.GroupParent("unified+cpu", group, own=True)]


def test_v2_beside_a_shell(folder: Path) -> None:
    group = tree(folder, controllers="cpu memory pids", enabled="memory pids", procs="77\n78\n")
    places, _ = cgroups.find("0::/app.slice/unit\n", mounts(folder, "cgroup2", ""), pid=77)
    assert places == [cgroups.GroupParent("unified", group.parent)]


def test_v2_without_delegation(folder: Path) -> None:
    tree(folder, controllers="cpu", enabled="cpu", procs="77\n78\n")
    places, why = cgroups.find("0::/app.slice/unit\n", mounts(folder, "cgroup2", ""), pid=77)
    assert (places, bool(why)) == ([], True)


@pytest.mark.parametrize("mark", ["user.delegate", "trusted.delegate", ""])
def test_v2_in_a_unit_of_systemd(folder: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """Of a service without delegation, systemd ended everything when one process ran out of memory; its own
    group is therefore used only where it is marked as delegated."""

    def getxattr(_path: Path, name: str) -> bytes:
        if name != mark:
            raise OSError(errno.ENODATA, "none")
        return b"1"

    monkeypatch.setattr(os, "getxattr", getxattr)
    group = tree(folder, controllers="cpu memory pids", enabled="memory pids", procs="77\n")
    unit = group.rename(group.with_name("unit.service"))
    places, _ = cgroups.find("0::/app.slice/unit.service\n", mounts(folder, "cgroup2", ""), pid=77)
    if mark:
        assert places == [cgroups.GroupParent("unified+cpu", unit, own=True)]
    else:
        assert places == [cgroups.GroupParent("unified", unit.parent)]


def test_v2_in_the_root_group(folder: Path) -> None:
    """Where nothing sorts processes, all are in the root group, whose children can have controllers."""
    tree(folder, controllers="", enabled="", procs="")
    (folder / "cgroup.procs").write_text("1\n77\n")
    (folder / "cgroup.subtree_control").write_text("cpu memory pids\n")
    places, _ = cgroups.find("0::/\n", mounts(folder, "cgroup2", ""), pid=77)
    assert places == [cgroups.GroupParent("unified+cpu", folder)]


def test_v2_that_refuses_its_controllers(folder: Path) -> None:
    """cgroup.subtree_control says what came of the request; a group without controllers limits nothing, so
    that processes have to be watched."""
    (folder / f"mhnos-{os.getpid()}").mkdir()
    (folder / f"mhnos-{os.getpid()}" / "cgroup.subtree_control").mkdir()
    assert cgroups.prepare([cgroups.GroupParent("unified+cpu", folder)]) == ()


def test_v2_that_gives_all_but_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def like_the_kernel(path: Path, text: str) -> int:
        if text == "+cpu":
            raise PermissionError(path)
        words = path.read_text() if path.exists() else ""
        return write(path, f"{words}{text.removeprefix('+')} ")

    monkeypatch.setattr(Path, "write_text", like_the_kernel)
    group = folder / f"mhnos-{os.getpid()}"
    assert cgroups.prepare([cgroups.GroupParent("unified+cpu", folder)]) == (("unified", str(group)),)


def test_v1_beside_an_empty_v2(folder: Path) -> None:
    (folder / "memory" / "box").mkdir(parents=True)
    (folder / "unified").mkdir()
    text = mounts(folder / "memory", "cgroup", "memory") + mounts(folder / "unified", "cgroup2", "")
    places, _ = cgroups.find("4:memory:/box\n0::/\n", text, pid=77)
    assert places == [cgroups.GroupParent("memory", folder / "memory" / "box")]
