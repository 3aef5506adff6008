"""The installer and the unit in a Debian that boots systemd: from nothing to a shell, upgrade, removal.

The tests are one story, in the order in which they stand, on one machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages.conftest import CACHE
from tests.packages.machine import Machine, base_system
from tests.packages.scene import COUNT, COUNTED, SOON, STOPPED, eventually
from tests.packages.wheel import ROOT, copy_checkout, readme_lines, run
from tests.project.console import Step
from tests.project.console import run as shown_as_run

# The first one may have to make the machine.
pytestmark = pytest.mark.timeout(900)

UNIT = ROOT / "packaging" / "systemd" / "mhnos-runtime.service"
PAGE = (ROOT / "docs" / "how-to" / "systemd.md").read_text(encoding="utf-8")
WORKSPACE = "/var/lib/mhnos-runtime/workspace"
PLACES = ("/opt", "/etc", "/usr/local", "/var/lib", "/var/cache", "/var/log", "/root", "/home")


def put(machine: Machine, bundle: Path, name: str) -> str:
    """The installer of a bundle, copied into the machine."""
    target = machine.root / "srv" / name
    if not target.exists():
        shutil.copytree(bundle, target)
    return f"/srv/{name}/install.sh"


def changed(bundle: Path, folder: Path, change: dict[str, tuple[str, str]]) -> Path:
    """The bundle with a wheel of a later version: in each file of the package one text for another."""
    source = copy_checkout(folder / "source")
    for name, (before, after) in change.items():
        path = source / "src" / "mhnos_runtime" / name
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")
    later = folder / "bundle"
    shutil.copytree(bundle, later)
    (old,) = later.glob("wheels/mhnos_runtime-*.whl")
    old.unlink()
    run([source / "tools" / "build-wheel", later / "wheels"], folder)
    return later


def main_pid(machine: Machine) -> int:
    return int(machine.run("systemctl", "show", "--property=MainPID", "--value", "mhnos-runtime"))


def server_pid(machine: Machine) -> int:
    """The server's, as the machine counts."""
    found = machine.call(
        "pgrep", "--parent", str(main_pid(machine)), "--full", "mhnos-runtime: server"
    ).stdout
    return int(found.split()[0]) if found.split() else 0


def counting(machine: Machine) -> subprocess.Popen[str]:
    """A client that reads numbered lines, of which the first has come."""
    client = machine.start("mhnos-runtime", "run", "shell", COUNT)
    eventually(lambda: "COUNT" in machine.run("mhnos-runtime", "ps").replace("i=0", "COUNT"))
    return client


def complete(client: subprocess.Popen[str]) -> None:
    out, err = client.communicate(timeout=90)
    assert client.returncode == 0, err
    assert out == COUNTED


@pytest.fixture(scope="module")
def before(machine: Machine) -> set[str]:
    return machine.files(*PLACES)


@pytest.fixture(scope="module")
def users_before(machine: Machine) -> str:
    return machine.run("getent", "passwd") + machine.run("getent", "group")


def test_the_scripts_and_the_unit_are_clean(tmp_path: Path) -> None:
    scripts = [*UNIT.parent.glob("*.sh"), UNIT.parent / "mhnos-runtime", ROOT / "tools" / "build-wheel"]
    run(["shellcheck", *scripts], tmp_path)


def test_a_dry_run_says_all_and_changes_nothing(
    machine: Machine, bundle: Path, before: set[str], users_before: str
) -> None:
    said = machine.run(put(machine, bundle, "first"), "--dry-run")
    for word in ("useradd", "-m venv", "dpkg --install", "mhnos-runtime.service", "systemctl start"):
        assert re.search(f"would run: .*{word}", said), said
    assert machine.files(*PLACES) == before
    assert machine.run("getent", "passwd") + machine.run("getent", "group") == users_before


def test_packages_are_not_installed_unasked(machine: Machine, bundle: Path, before: set[str]) -> None:
    done = machine.call(put(machine, bundle, "first"))
    assert done.returncode == 1
    assert "give --yes" in done.stderr
    assert machine.files(*PLACES) == before


def test_from_nothing_to_a_shell_without_a_network(
    machine: Machine, bundle: Path, figure: Callable[[str], None]
) -> None:
    started = time.monotonic()
    said = machine.run(put(machine, bundle, "first"), "--yes")
    took = time.monotonic() - started
    assert "serves at http://127.0.0.1:18790" in said
    assert "/var/lib/mhnos-runtime/state/token" in said
    token = machine.run("mhnos-runtime", "token").strip()
    assert token not in said
    assert token not in machine.run("journalctl", "--unit", "mhnos-runtime")
    assert machine.run("systemctl", "is-enabled", "mhnos-runtime") == "enabled\n"
    assert (
        machine.run("mhnos-runtime", "run", "shell", "whoami; pwd; echo $((6*7))")
        == "mhnos\n/workspace\n42\n"
    )
    rows = json.loads(machine.run("mhnos-runtime", "ps", "--all", "--json"))
    assert {row["sandbox"] for row in rows} == {"strict"}
    size = machine.run("du", "--summarize", "--block-size=1MB", "/opt/mhnos-runtime").split()[0]
    idle = [
        machine.run("cat", f"/proc/{pid}/smaps_rollup") for pid in (main_pid(machine), server_pid(machine))
    ]
    memory = sum(
        int(kilobytes) for said in idle for kilobytes in re.findall(r"^Pss: +(\d+)", said, re.MULTILINE)
    )
    figure(f"systemd: installed in {took:.1f} s, {size} MB, idle memory {memory / 1000:.0f} MB")


def test_nobody_else_reads_the_token_or_the_workspace(machine: Machine) -> None:
    for path in ("/var/lib/mhnos-runtime/state/token", WORKSPACE):
        done = machine.call("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", path)
        assert done.returncode != 0


def test_kinds_find_their_programs(machine: Machine) -> None:
    (machine.root / WORKSPACE[1:] / "a.js").write_text(
        "console.log(+process.versions.node.split('.')[0] >= 22)"
    )
    (machine.root / WORKSPACE[1:] / "a.py").write_text("import sys; print(sys.version_info >= (3, 11))")
    assert machine.run("mhnos-runtime", "run", "node", "a.js") == "true\n"
    assert machine.run("mhnos-runtime", "run", "python", "a.py") == "True\n"
    machine.run("mhnos-runtime", "check")


def test_a_second_run_changes_nothing(machine: Machine, bundle: Path) -> None:
    pid, files = main_pid(machine), machine.files("/opt", "/etc", "/usr/local")
    said = machine.run(put(machine, bundle, "first"), "--yes")
    assert "runs already" in said
    assert main_pid(machine) == pid
    assert machine.files("/opt", "/etc", "/usr/local") == files


def test_status_tells_what_is_installed(machine: Machine) -> None:
    said = machine.run("/srv/first/install.sh", "status")
    assert re.search(r"version +0\.", said)
    assert re.search(r"service +active, enabled", said)
    assert re.search(r"health +serving for", said)
    assert "http://127.0.0.1:18790" in said


def test_the_exposure_is_what_the_page_says(machine: Machine) -> None:
    said = machine.run("systemd-analyze", "security", "--no-pager", "mhnos-runtime")
    score = re.search(r"exposure level for mhnos-runtime.service: ([0-9.]+)", said)
    stated = re.search(r"exposure level of ([0-9.]+)", PAGE)
    assert score is not None
    assert stated is not None
    assert score[1] == stated[1]
    done = machine.call("systemd-analyze", "verify", "/etc/systemd/system/mhnos-runtime.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_takes_nothing_from_the_sandbox(machine: Machine) -> None:
    """A system call group that this systemd did not know had left processes without their Landlock domain."""
    facts = json.loads(machine.run("mhnos-runtime", "doctor", "--json"))
    assert all(level["available"] for level in facts["levels"].values())
    outside = next(fact["detail"] for fact in facts["facts"] if fact["name"] == "landlock")
    machine.run("mhnos-runtime", "run", "shell", "true")
    row = json.loads(machine.run("mhnos-runtime", "ps", "--all", "--json"))[-1]
    assert row["isolation"]["landlock"] == int(re.findall(r"ABI (\d+)", outside)[0])
    assert row["isolation"]["seccomp"]
    assert set(row["isolation"]["namespaces"]) == {"user", "mount", "pid", "ipc", "uts", "cgroup"}


def test_a_reload_during_a_stream_loses_no_byte(machine: Machine) -> None:
    client, pid, server = counting(machine), main_pid(machine), server_pid(machine)
    machine.run("systemctl", "reload", "mhnos-runtime")
    assert server_pid(machine) != server
    assert main_pid(machine) == pid
    complete(client)


def test_a_killed_server_loses_no_byte(machine: Machine) -> None:
    client, pid, server = counting(machine), main_pid(machine), server_pid(machine)
    machine.run("kill", "-KILL", str(server))
    eventually(lambda: server_pid(machine) not in (0, server))
    assert main_pid(machine) == pid
    complete(client)


def test_a_killed_supervisor_is_started_again_and_its_processes_are_told_lost(machine: Machine) -> None:
    process = machine.run("mhnos-runtime", "run", "-d", "shell", "sleep 1000").strip()
    pid = main_pid(machine)
    machine.run("kill", "-KILL", str(pid))
    eventually(lambda: main_pid(machine) not in (0, pid))
    machine.run("mhnos-runtime", "health", "--wait", str(SOON))
    (row,) = [
        line for line in machine.run("mhnos-runtime", "ps", "--all").splitlines() if line.startswith(process)
    ]
    assert "lost" in row
    eventually(lambda: machine.call("pgrep", "--exact", "--full", "sleep 1000").returncode == 1)


def test_the_watchdog_ends_a_supervisor_that_hangs(machine: Machine) -> None:
    drop_in = machine.root / "etc/systemd/system/mhnos-runtime.service.d/test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=2\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "mhnos-runtime")
    pid = main_pid(machine)
    machine.run("kill", "-STOP", str(pid))
    eventually(lambda: main_pid(machine) not in (0, pid))
    machine.run("mhnos-runtime", "health", "--wait", str(SOON))
    shutil.rmtree(drop_in.parent)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "mhnos-runtime")


def test_an_upgrade_keeps_processes_and_clients(machine: Machine, bundle: Path, tmp_path: Path) -> None:
    later = changed(bundle, tmp_path, {"__init__.py": ('"0.', '"9.')})
    client, pid = counting(machine), main_pid(machine)
    said = machine.run(put(machine, later, "second"), "--yes")
    assert "processes go on" in said
    assert machine.run("mhnos-runtime", "--version").split()[-1].startswith("9.")
    assert main_pid(machine) == pid
    complete(client)
    assert len(list((machine.root / "opt/mhnos-runtime/versions").iterdir())) == 2


def test_an_upgrade_that_cannot_take_over_changes_nothing(
    machine: Machine, bundle: Path, tmp_path: Path
) -> None:
    change = {
        "supervisor/handover.py": ("STATE_VERSION = ", "STATE_VERSION = 1"),
        "__init__.py": ('"0.', '"8.'),
    }
    foreign = changed(bundle, tmp_path, change)
    pid, server = main_pid(machine), server_pid(machine)
    done = machine.call(put(machine, foreign, "third"), "--yes")
    assert done.returncode == 1
    assert "does not understand" in done.stderr
    assert machine.run("mhnos-runtime", "--version").split()[-1].startswith("9.")
    assert (main_pid(machine), server_pid(machine)) == (pid, server)


def test_a_reboot_brings_it_back(machine: Machine) -> None:
    token = machine.run("mhnos-runtime", "token")
    process = machine.run("mhnos-runtime", "run", "-d", "shell", "echo before; sleep 1000").strip()
    eventually(lambda: machine.run("mhnos-runtime", "logs", process) == "before\n")
    machine.reboot()
    machine.run("mhnos-runtime", "health", "--wait", str(SOON))
    assert machine.run("mhnos-runtime", "token") == token
    assert machine.run("mhnos-runtime", "logs", process) == "before\n"
    assert machine.run("mhnos-runtime", "run", "shell", "ls").split() == ["a.js", "a.py"]


def test_settings_come_from_the_environment_file(machine: Machine) -> None:
    file = machine.root / "etc/mhnos-runtime/environment"
    file.write_text(file.read_text() + "MHNOS_RUNTIME_PORT=18999\n")
    machine.run("systemctl", "restart", "mhnos-runtime")
    assert "http://127.0.0.1:18999" in machine.run("/srv/first/install.sh", "status")


def test_a_stop_ends_processes_in_order_and_soon(machine: Machine) -> None:
    (machine.root / WORKSPACE[1:] / "stop.py").write_text(STOPPED)
    process = machine.run("mhnos-runtime", "run", "-d", "python", "stop.py").strip()
    eventually(lambda: "up" in machine.run("mhnos-runtime", "logs", process))
    started = time.monotonic()
    machine.run("systemctl", "stop", "mhnos-runtime")
    assert time.monotonic() - started < 10
    machine.run("systemctl", "start", "mhnos-runtime")
    assert machine.run("mhnos-runtime", "logs", process) == "up\ntold 15\n"


def test_uninstall_leaves_nothing_but_the_workspace(
    machine: Machine, before: set[str], users_before: str
) -> None:
    (machine.root / WORKSPACE[1:] / "kept").write_text("mine")
    machine.run("/srv/first/install.sh", "uninstall")
    left = machine.files(*PLACES) - before
    assert {path for path in left if not path.startswith("var/lib/mhnos-runtime")} <= packages(machine)
    ours = {path for path in left if path.startswith("var/lib/mhnos-runtime")}
    outside = {path for path in ours if not path.startswith("var/lib/mhnos-runtime/workspace/")}
    assert outside == {"var/lib/mhnos-runtime", "var/lib/mhnos-runtime/workspace"}
    assert (machine.root / WORKSPACE[1:] / "kept").read_text() == "mine"
    assert (machine.root / WORKSPACE[1:] / "kept").stat().st_uid == 0
    assert machine.run("getent", "passwd") + machine.run("getent", "group") == users_before
    assert "mhnos" not in machine.run("systemctl", "list-units", "--all", "--plain")


def packages(machine: Machine) -> set[str]:
    """Files of Debian packages, which stay."""
    return {line.lstrip("/") for line in machine.run("dpkg-query", "-L", "bubblewrap").splitlines()}


def test_a_new_installation_takes_the_workspace_over_and_purge_removes_it(
    machine: Machine, bundle: Path, before: set[str]
) -> None:
    machine.run(put(machine, bundle, "first"), "--yes")
    assert (
        machine.run("mhnos-runtime", "run", "shell", "cat kept; echo more >> kept; cat kept") == "minemine"
        "more\n"
    )
    machine.run("/srv/first/install.sh", "uninstall", "--purge")
    assert machine.files(*PLACES) - before <= packages(machine)


def test_the_lines_of_the_readme_lead_from_a_clone_to_a_shell(tmp_path: Path) -> None:
    """On a machine with a network, where everything comes from the registries."""
    with Machine(base_system(CACHE, "machine"), tmp_path, network=True) as online:
        copy_checkout(online.root / "srv" / "clone")
        certificates = "/etc/ssl/certs/ca-certificates.crt"
        shutil.copy(os.environ.get("SSL_CERT_FILE", certificates), online.root / certificates[1:])
        trust = [
            f"{name}={certificates}" for name in ("PIP_CERT", "NODE_EXTRA_CA_CERTS", "npm_config_cafile")
        ]
        settings = online.root / "etc/mhnos-runtime/environment"
        settings.parent.mkdir()
        settings.write_text("MHNOS_RUNTIME_PORT=0\n")  # the network is shared, and so are its ports
        install, shell = (line.removeprefix("sudo ") for line in readme_lines("packaging/systemd/install.sh"))
        online.run("env", *trust, "bash", "-c", f"cd /srv/clone && {install} --yes")
        said = online.run("bash", "-c", shown_as_run(Step(0, shell)).replace("exit\\n", "whoami; exit\\n"))
        assert "mhnos" in said.splitlines()
        engines = json.loads(online.run("mhnos-runtime", "engines", "list", "--json"))
        assert [each["name"] for each in engines if each["state"] == "installed"] == ["workerd"]
