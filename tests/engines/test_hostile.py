"""npm and packages that mean harm to root, who installs them: with and without a sandbox to keep them in."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.cli.confined import confined as as_whom
from mhnos_runtime.engines import Engine, EngineStore, Spec
from mhnos_runtime.engines.change import Change
from mhnos_runtime.engines.confined import Confined, running
from mhnos_runtime.errors import InstallFailed
from tests.engines.registry import Package, Registry, spec_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else run npm")

#: Each line says what came of one attempt; the program's folder is its own, and is where it says so.
ATTEMPTS = """
try() { name=$1; shift; if ( "$@" ) >/dev/null 2>&1; then echo "$name out"; else echo "$name held"; fi; }
write() { echo x > "$1"; }
echo "uid $(id -u)"
try shadow cat /etc/shadow
try home ls /root
try secret cat PLACE/secret
try readable cat PLACE/readable
try settings cat PLACE/home/.npmrc
try copied_settings cat PLACE/engines/.staging/npm/.npmrc
try open_folder write PLACE/open/made
try place write PLACE/made
try store write PLACE/engines/made
try lock write PLACE/engines/lock
try tools write PLACE/engines/.staging/tools/made
try system write /usr/bin/made
try signal kill -0 PID
try privileges sh -c 'grep -q "NoNewPrivs:.0" /proc/self/status'
"""
#: What the sandbox alone holds: every user of the machine can do it.
OF_EVERY_USER = {"readable", "open_folder"}


@pytest.fixture(params=[True, False], ids=["sandbox", "no sandbox"])
def whom(request: pytest.FixtureRequest, can_sandbox: bool) -> Iterator[Confined]:
    if request.param and not can_sandbox:
        pytest.skip("this machine has no sandbox")
    with as_whom(request.param) as whom:
        assert whom is not None
        yield whom


@pytest.fixture
def scene(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that are to be kept."""
    (place / "home").mkdir(mode=0o700)
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    for path, mode in (("secret", 0o600), ("readable", 0o644), ("home/.npmrc", 0o600)):
        (place / path).write_text("; a secret\n")
        (place / path).chmod(mode)
    monkeypatch.setenv("HOME", str(place / "home"))
    return place


def install(scene: Path, spec: Spec, npm: tuple[str, ...], whom: Confined) -> Engine:
    store = EngineStore(scene / "engines", catalogue={spec.name: spec})
    with Change(store, whom) as change:
        return change.install(spec.name, npm)


def attempts(scene: Path) -> str:
    return ATTEMPTS.replace("PLACE", str(scene)).replace("PID", str(os.getpid()))


def harmful(code: str) -> Package:
    return Package("main", "1.0.0", f'#!/bin/sh\ncd "$(dirname "$0")"\n{code}\nexit 0\n'.encode())


def check_report(report: str, whom: Confined, *, of_npm: bool = False) -> None:
    rows = dict(line.split() for line in report.splitlines())
    assert rows.pop("uid") == str(whom.user[0])
    out = {name for name, outcome in rows.items() if outcome == "out"}
    assert len(rows) == 14
    # npm needs the settings.
    assert out == (set() if whom.bubblewrap else OF_EVERY_USER) | ({"copied_settings"} if of_npm else set())


def test_a_program_at_its_first_start(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined
) -> None:
    """It ran as root, outside of any sandbox."""
    spec = spec_of(registry, scene / "locks", harmful(f"({attempts(scene)}) > report"))
    engine = install(scene, spec, npm, whom)
    check_report((engine.program.parent / "report").read_text(), whom)
    assert not (scene / "made").exists()
    for path in (engine.folder, *engine.folder.rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (0, 0), path
        assert path.is_symlink() or not status.st_mode & 0o7022, path
    assert running(whom.user[0]) == []


def test_npm_itself(scene: Path, registry: Registry, whom: Confined) -> None:
    (scene / "npm").write_text(
        "#!/bin/sh\necho 'npm error code EHOSTILE' >&2\n"
        f"echo \"npm error $( ({attempts(scene)}) | tr '\\n' ',')\" >&2\nexit 1\n"
    )
    with pytest.raises(InstallFailed) as caught:
        install(scene, spec_of(registry, scene / "locks", Package("main", "1.0.0")), (f"{scene}/npm",), whom)
    report = caught.value.message.partition("EHOSTILE; ")[2]
    check_report(report.replace(",", "\n"), whom, of_npm=True)
    assert running(whom.user[0]) == []


def test_install_scripts_are_not_even_run(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined
) -> None:
    package = Package("main", "1.0.0", scripts={"postinstall": f"echo x > {scene}/open/ran; echo x > ran"})
    engine = install(scene, spec_of(registry, scene / "locks", package), npm, whom)
    assert not list((scene / "open").iterdir())
    assert not list(engine.folder.rglob("ran"))


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("cp /bin/sh shell; chmod 4755 shell", "set-user-ID"),
        ("cp /bin/sh shell; chmod 2755 shell", "set-user-ID or set-group-ID"),
        ("ln -s /etc/shadow link", "a link that leads out"),
        ("ln -s ../../../../../.. link", "a link that leads out"),
        ("mkdir a; ln -s . a/b; ln -s a/b/../../../../../../../lock link", "a link that leads out"),
        ("mkfifo fifo", "a device, FIFO or socket"),
        ("echo x > one; ln one other", "a file with several names"),
        ("mkdir closed; mkfifo closed/fifo; chmod 0 closed", "a device, FIFO or socket"),
        # shutil.rmtree leaves them behind, or raises RecursionError, and so did each later command.
        ("n=0; while [ $n -lt 3000 ]; do mkdir a; cd a; n=$((n + 1)); done", "folders nested too deeply"),
    ],
)
def test_what_no_engine_has_in_it_is_refused(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined, code: str, what: str
) -> None:
    spec = spec_of(registry, scene / "locks", harmful(code))
    with pytest.raises(InstallFailed) as caught:
        install(scene, spec, npm, whom)
    assert (caught.value.code, what in caught.value.message) == ("engine-unsafe", True), caught.value.message
    assert EngineStore(scene / "engines", catalogue={spec.name: spec}).versions(spec.name) == []
    assert not (scene / "engines" / ".staging").exists()


def test_a_first_start_that_writes_without_end_takes_no_memory_of_root_s(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined
) -> None:
    code = "head -c 300000000 /dev/zero; echo; echo the end >&2; exit 1"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InstallFailed, match=r"cannot be started on this machine: the end$"):
        install(scene, spec_of(registry, scene / "locks", harmful(code)), npm, whom)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # KiB


def test_npm_that_writes_a_line_without_end_takes_no_memory_of_root_s(
    scene: Path, registry: Registry, whom: Confined
) -> None:
    (scene / "npm").write_text(
        "#!/bin/sh\nhead -c 300000000 /dev/zero >&2\necho >&2\necho npm error EHUGE >&2\nexit 1\n"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InstallFailed, match="EHUGE"):
        install(scene, spec_of(registry, scene / "locks", Package("main", "1.0.0")), (f"{scene}/npm",), whom)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # KiB


def test_copies_of_root_s_settings_are_made_where_nobody_else_can_enter(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    copy = Confined.npm

    def watched(self: Confined, command: Sequence[str], home: Path, tools: Path) -> Any:
        modes.append(home.stat().st_mode & 0o777)
        return copy(self, command, home, tools)

    monkeypatch.setattr(Confined, "npm", watched)
    install(scene, spec_of(registry, scene / "locks", Package("main", "1.0.0")), npm, whom)
    assert modes == [0o700]


def test_modes_and_rights_that_let_others_write_are_taken(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined
) -> None:
    code = (
        "echo x > file; chmod 0666 file; mkdir folder; chmod 0777 folder; setfacl -m u:1234:rwx file folder"
    )
    engine = install(scene, spec_of(registry, scene / "locks", harmful(code)), npm, whom)
    for name, mode in (("file", 0o644), ("folder", 0o755)):
        path = engine.program.parent / name
        assert (path.stat().st_uid, path.stat().st_mode & 0o7777) == (0, mode)
        assert not [each for each in os.listxattr(path) if "acl" in each]


def test_nothing_that_it_started_lives_on(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined
) -> None:
    """What came later could change the files that were checked before."""
    code = "(setsid sh -c 'sleep 1000 & trap \"\" HUP TERM; while :; do sleep 1000; done' &) >/dev/null 2>&1"
    install(scene, spec_of(registry, scene / "locks", harmful(code)), npm, whom)
    assert running(whom.user[0]) == []


def test_settings_of_root_count_and_are_not_kept(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry stands in a file that only root can read, and names a variable for the credentials."""
    monkeypatch.delenv("npm_config_registry")
    monkeypatch.setenv("REGISTRY_PASSWORD", "sesame-" * 3)
    address = registry.url.removeprefix("http:")
    (scene / "home" / ".npmrc").write_text(
        f"registry={registry.url}\n{address}:_authToken=${{REGISTRY_PASSWORD}}\n"
    )
    package = harmful(f"env > environment; find {scene} -name .npmrc > found 2>/dev/null")
    engine = install(scene, spec_of(registry, scene / "locks", package), npm, whom)
    assert registry.authorizations == {"Bearer " + "sesame-" * 3}
    told = (engine.program.parent / "environment").read_text() + (engine.program.parent / "found").read_text()
    assert "sesame" not in told
    assert ".npmrc" not in told
    for path in (scene / "engines").rglob("*"):
        assert not path.is_file() or b"sesame" not in path.read_bytes()


def test_root_without_a_sandbox_is_told_what_there_is(scene: Path, tmp_path: Path) -> None:
    """It does not fall back by itself."""
    command = [sys.executable, "-m", "mhnos_runtime", "engines", "install", "workerd"]
    environment = {**os.environ, "PATH": str(tmp_path), "MHNOS_ENGINES_DIR": str(scene / "engines")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "root's npm runs in a sandbox, which this machine cannot give: bubblewrap" in done.stderr
    assert "--no-sandbox" in done.stderr
    assert not (scene / "engines").exists()


def test_a_folder_that_npm_could_not_enter(
    scene: Path, registry: Registry, npm: tuple[str, ...], whom: Confined
) -> None:
    spec = spec_of(registry, scene / "locks", Package("main", "1.0.0"))
    store = EngineStore(scene / "home" / "engines", catalogue={spec.name: spec})
    with (
        Change(store, whom) as change,
        pytest.raises(InstallFailed, match=f"is behind {scene}/home") as caught,
    ):
        change.install(spec.name, npm)
    assert caught.value.code == "engines-dir"
    assert not registry.fetched
