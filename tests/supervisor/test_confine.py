"""What Landlock leaves a process beside what the plan names: its own folders. Forks a child each time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.launch import Confinement, Landlock
from mhnos_runtime.sandbox.landlock import WRITE, handled
from mhnos_runtime.sandbox.probe import landlock_abi
from mhnos_runtime.supervisor import confine

MASK = handled(landlock_abi())


@pytest.fixture(autouse=True)
def _landlock() -> None:
    if not landlock_abi():
        pytest.skip("the kernel has no Landlock")


def held(own: Path, attempt: Callable[[], object], temporary: str = "") -> bool:
    """Whether a child that may write to its own folders only is refused."""
    landlock = Landlock(MASK, 0, 0, private_tmp=WRITE & MASK, own_folders=((str(own), WRITE & MASK),))
    os_pid = os.fork()
    if os_pid == 0:
        code = 2
        try:
            confine.lock_up(Confinement(no_new_privs=True, landlock=landlock), temporary)
            code = 0
            attempt()
        except PermissionError:
            code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(os_pid, 0)[1])
    assert code in (0, 1)
    return code == 1


def test_a_folder_that_is_missing_is_made_and_can_be_written(tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert not held(own, lambda: (own / "file").write_text("x"))
    assert (own / "file").read_text() == "x"
    assert own.stat().st_mode & 0o777 == 0o700
    assert held(own, lambda: (tmp_path / "beside").write_text("x"))


def test_a_link_that_somebody_has_put_there_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    own = tmp_path / "own"
    own.symlink_to("outside")
    assert held(own, lambda: (tmp_path / "outside" / "file").write_text("x"))
    assert held(own, lambda: (own / "file").write_text("x"))


def test_a_folder_of_another_user_is_not_allowed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder for somebody else")
    own = tmp_path / "own"
    own.mkdir(0o777)
    os.chown(own, 1234, 1234)
    assert held(own, lambda: (own / "file").write_text("x"))


def test_the_folder_for_temporary_files_can_be_written_and_none_beside(tmp_path: Path) -> None:
    for name in ("p1000", "p1001"):
        (tmp_path / name).mkdir()
    temporary = str(tmp_path / "p1000")
    own = tmp_path / "own"
    assert not held(own, lambda: (tmp_path / "p1000" / "file").write_text("x"), temporary)
    assert held(own, lambda: (tmp_path / "p1001" / "file").write_text("x"), temporary)
    assert held(own, lambda: os.listdir(tmp_path), temporary)
