"""Programs as processes see them: real files and links in a workspace, at every level."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import MhnosError, NotFound, Refused, StartFailed
from mhnos_runtime.files.confine import MAX_STEPS, Workspace
from mhnos_runtime.sandbox import LEVELS, Policy, Sandbox
from mhnos_runtime.server.processes.programs import Programs
from tests.server.processes.scene import FACTS, descriptors

Level = str


def make(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    make(root / "bin" / "tool")
    make(root / "app" / ".venv" / "bin" / "pip", f"#!{root}/app/.venv/bin/python3 -I\n")
    (root / "app" / ".venv" / "bin" / "python3").symlink_to("python")
    (root / "app" / ".venv" / "bin" / "python").symlink_to("/bin/sh")
    (root / "plain").write_text("")
    return root


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A folder of the machine that every level shows."""
    make(tmp_path / "system" / "bin" / "python3")
    return tmp_path / "system"


@pytest.fixture
def on(root: Path, system: Path) -> Iterator[Callable[[Level], Programs]]:
    shown = tuple((path, "") for path in ("/usr", "/bin", str(system)))
    workspaces = []

    def at(level: Level) -> Programs:
        workspaces.append(Workspace(root))
        policy = Policy(level)  # type: ignore[arg-type]
        return Programs(workspaces[-1], Sandbox(policy, replace(FACTS, system=shown), str(root)))

    before = descriptors()
    yield at
    for each in workspaces:
        each.close()
    assert descriptors() == before


@pytest.fixture(params=LEVELS)
def programs(on: Callable[[Level], Programs], request: pytest.FixtureRequest) -> Programs:
    return on(request.param)


# On a PATH


def test_the_first_one_that_can_be_executed(programs: Programs, root: Path, system: Path) -> None:
    home, of_system = programs.home, f"{system}/bin"
    (root / "bin" / "python3").write_text("not executable")
    (root / "dir" / "python3").mkdir(parents=True)
    (root / "dangling").mkdir()
    (root / "dangling" / "python3").symlink_to("nowhere")
    before = f"{home}/bin:{home}/dir:{home}/dangling:{home}/none:/none"
    assert programs.find("python3", f"{before}:{of_system}:{home}/app/.venv/bin") == f"{of_system}/python3"
    venv = f"{home}/app/.venv/bin"
    assert programs.find("python3", f"{venv}:{of_system}") == f"{venv}/python3"
    assert programs.find("nosuch", f"{venv}:{of_system}") is None


def test_folders_that_are_named_from_the_working_directory(programs: Programs) -> None:
    for cwd, path in (
        ("/app", ".venv/bin"),
        ("/app/.venv", "bin"),
        ("/bin", "../app/.venv/bin"),
        ("/app/.venv/bin", ""),
    ):
        assert programs.find("python3", path, cwd) == f"{programs.home}/app/.venv/bin/python3"


def test_by_the_path_on_the_host_too(programs: Programs, root: Path) -> None:
    path = f"{root}/app/.venv/bin"
    assert programs.find("python3", path) == f"{path}/python3"


def test_no_program_that_processes_do_not_see(on: Callable[[Level], Programs], tmp_path: Path) -> None:
    hidden = make(tmp_path / "hidden" / "tool")
    (tmp_path / "system" / "bin" / "linked").symlink_to(hidden)
    for level, sees in (("strict", False), ("relaxed", False), ("none", True)):
        programs = on(level)
        assert bool(programs.find("tool", str(hidden.parent))) is sees
        assert bool(programs.find("linked", f"{tmp_path}/system/bin")) is sees


# One program


def test_a_link_to_the_system_is_a_program(programs: Programs) -> None:
    for name in ("python3", "python", "pip"):
        programs.check(f"{programs.home}/app/.venv/bin/{name}")


def test_one_behind_links_inside(programs: Programs, root: Path) -> None:
    """An installation of Python that lies in the workspace, by its path there."""
    (root / "current").symlink_to("app")
    (root / "python3").symlink_to(f"{programs.home}/current/.venv/bin/python3")
    programs.check(f"{programs.home}/python3")
    programs.check(f"{programs.home}/current/.venv/bin/../bin/pip")


def test_a_folder_that_is_called_as_the_workspace_is_in_strict(
    on: Callable[[Level], Programs], root: Path
) -> None:
    make(root / "workspace" / "tool")
    (root / "workspace" / "link").symlink_to("tool")
    for level in LEVELS:
        programs = on(level)
        programs.check(f"{programs.home}/workspace/link")


@pytest.mark.parametrize("link", ["python3", "pip"])
@pytest.mark.parametrize("level", ["strict", "relaxed"])
def test_one_that_leads_out_of_the_sandbox_is_named(
    on: Callable[[Level], Programs], root: Path, tmp_path: Path, level: Level, link: str
) -> None:
    hidden = make(tmp_path / "pyenv" / "python3.11")
    (root / "app" / ".venv" / "bin" / "python").unlink()
    (root / "app" / ".venv" / "bin" / "python").symlink_to(hidden)
    programs = on(level)
    with pytest.raises(
        StartFailed, match=rf"python3 is {hidden}: processes do not see it \(sandbox {level}\)"
    ) as failed:
        programs.check(f"{programs.home}/app/.venv/bin/{link}")
    assert failed.value.code == "not-found"
    assert failed.value.hint
    on("none").check(f"{root}/app/.venv/bin/{link}")


@pytest.mark.parametrize("level", ["strict", "relaxed"])
def test_links_of_the_machine_that_processes_do_not_see_are_not_told(
    on: Callable[[Level], Programs], root: Path, system: Path, tmp_path: Path, level: Level
) -> None:
    """A process links to /proc/1/cwd, or to a folder of the operator's, and has the server look there."""
    hidden = tmp_path / "operator"
    make(hidden / "secret-project" / "tool")
    (hidden / "current").symlink_to("secret-project")
    (root / "link").symlink_to(hidden / "current" / "tool")
    (system / "bin" / "link").symlink_to(hidden / "current" / "tool")
    (root / "over").symlink_to(system / "bin" / "link")
    programs = on(level)
    for path in (root / "link", root / "over"):
        with pytest.raises(StartFailed, match="processes do not see it") as failed:
            programs.check(f"{programs.home}/{path.name}")
        assert str(os.readlink(path)) in failed.value.message
        assert "secret" not in failed.value.message


def costly(root: Path, links: int = 30) -> None:
    """A folder that takes hundreds of steps to come to."""
    deep = root / "d" / "d" / "d" / "d" / "d" / "d" / "d" / "d"
    deep.mkdir(parents=True)
    (root / "l0").symlink_to("d/d/d/d/d/d/d/d")
    for number in range(links):
        (root / f"l{number + 1}").symlink_to("d/../" * 10 + f"l{number}")


def test_a_path_takes_no_more_steps_than_one_file(
    programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is looked at on the event loop."""
    costly(root)
    opened = 0
    real_open = os.open

    def counted(*args: Any, **more: Any) -> int:
        nonlocal opened
        opened += 1
        return real_open(*args, **more)

    monkeypatch.setattr("mhnos_runtime.files.confine.os.open", counted)
    folders = ":".join([f"{programs.home}/l30"] * 256)
    assert programs.find("tool", f"{programs.home}/bin:{folders}") == f"{programs.home}/bin/tool"
    assert programs.find("no-such-tool", folders) is None
    assert opened <= MAX_STEPS + 256


@pytest.mark.parametrize(
    ("path", "error", "code"),
    [
        ("none", NotFound, "not-found"),
        ("none/none", NotFound, "not-found"),
        ("loop", NotFound, "not-found"),
        ("gone", NotFound, "not-found"),
        ("app", StartFailed, "not-executable"),
        ("plain", StartFailed, "not-executable"),
        ("out/tool", Refused, "outside-workspace"),
    ],
)
def test_what_is_no_program(
    programs: Programs, root: Path, path: str, error: type[MhnosError], code: str
) -> None:
    (root / "loop").symlink_to("loop")
    (root / "gone").symlink_to("/usr/bin/no-such-program")
    (root / "out").symlink_to("/usr/bin")
    with pytest.raises(error) as failed:
        programs.check(f"{programs.home}/{path}")
    assert failed.value.code == code


@pytest.mark.parametrize("first", ["", "#!", "#!  \n", "#!/bin/sh", "\x7fELF", "#!/bin/sh " + "x" * 5000])
def test_the_first_line_of_a_program_may_be_anything(programs: Programs, root: Path, first: str) -> None:
    make(root / "odd", first)
    programs.check(f"{programs.home}/odd")


def test_a_fifo_is_not_waited_for(programs: Programs, root: Path) -> None:
    os.mkfifo(root / "fifo", 0o755)
    with pytest.raises(StartFailed):
        programs.check(f"{programs.home}/fifo")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs processes as somebody else")
def test_one_that_their_user_cannot_reach_is_named(root: Path, tmp_path: Path) -> None:
    closed = make(tmp_path / "closed" / "python3")
    closed.parent.chmod(0o700)
    (root / "link").symlink_to(closed)
    with Workspace(root) as workspace:
        programs = Programs(workspace, Sandbox(Policy("none", user=(65534, 65534)), FACTS, str(root)))
        with pytest.raises(StartFailed, match="the user of processes cannot enter") as failed:
            programs.check(f"{root}/link")
    assert failed.value.code == "not-executable"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs processes as somebody else")
def test_what_is_in_a_folder_that_their_user_cannot_enter_is_not_told(root: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    make(closed / "secret" / "tool")
    (closed / "link").symlink_to("secret/tool")
    closed.chmod(0o700)
    said = set()
    for number, path in enumerate((closed / "link", closed / "none", closed / "secret" / "tool" / "x")):
        (root / f"link{number}").symlink_to(path)
        with Workspace(root) as workspace:
            programs = Programs(workspace, Sandbox(Policy("none", user=(65534, 65534)), FACTS, str(root)))
            with pytest.raises(StartFailed, match="cannot enter") as failed:
                programs.check(f"{root}/link{number}")
        said.add(failed.value.message.partition(": ")[2])
        assert f"link{number} is {path}: " in failed.value.message
    assert len(said) == 1
