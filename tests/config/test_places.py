"""The folders that settings name: made, checked, and each thing that can be wrong with them said."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from mhnos_runtime.config import (
    ConfigError,
    Settings,
    check_workspace,
    ensure_state_dir,
    load,
    prepare_workspace,
)


def settings_of(tmp_path: Path, **flags: object) -> Settings:
    return load(flags, {"HOME": str(tmp_path)})[0]


def test_default_workspace_is_made(tmp_path: Path) -> None:
    base = settings_of(tmp_path)
    workspace = tmp_path / "deep/mhnos-workspace"
    settings = dataclasses.replace(base, workspace=workspace)
    assert prepare_workspace(settings) == workspace
    assert workspace.is_dir()
    assert prepare_workspace(settings) == workspace


def test_missing_workspace_that_was_named_is_not_made(tmp_path: Path) -> None:
    named = tmp_path / "my work"
    with pytest.raises(ConfigError) as caught:
        prepare_workspace(settings_of(tmp_path, workspace=str(named)))
    assert caught.value.message == f"workspace {named} (by flag --workspace) does not exist"
    assert caught.value.hint == f"mkdir -p '{named}'"
    assert not named.exists()


@pytest.mark.parametrize("create", [True, False])
def test_workspace_that_is_a_file(tmp_path: Path, create: bool) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is not a folder"):
        check_workspace(file, create=create)


@pytest.mark.parametrize("create", [True, False])
def test_workspace_below_a_file(tmp_path: Path, create: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"workspace .*/file/w (does not exist|is not a folder)"):
        check_workspace(tmp_path / "file/w", create=create)


def test_workspace_by_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert check_workspace(tmp_path / "link") == tmp_path / "link"
    with pytest.raises(ConfigError, match="does not exist"):
        check_workspace(tmp_path / "dangling")


def test_workspace_without_permission(tmp_path: Path, unprivileged: None) -> None:
    with pytest.raises(ConfigError, match="is not writable") as caught:
        check_workspace(Path("/usr"))
    assert caught.value.hint.startswith("it belongs to root: choose a folder of your own")


def test_workspace_of_one_s_own_without_permission(
    unprivileged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/usr, were it the own one."""
    closed = Path("/usr")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigError, match="is not writable") as caught:
        check_workspace(closed)
    assert f"chmod u+rwx {closed}" in caught.value.hint


def test_workspace_behind_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "w").mkdir(parents=True)
    closed.chmod(0)
    was = os.geteuid()
    tmp_path.chmod(0o755)
    try:
        if was == 0:
            os.seteuid(65534)
        with pytest.raises(ConfigError, match=r"cannot be used: Permission denied"):
            check_workspace(closed / "w")
    finally:
        os.seteuid(was)
        closed.chmod(0o700)


def test_state_dir_is_made_private(tmp_path: Path) -> None:
    state = tmp_path / "a/state"
    assert ensure_state_dir(state) == state
    assert state.stat().st_mode & 0o777 == 0o700


def test_state_dir_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ensure_state_dir(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_state_dir_that_others_can_write(tmp_path: Path, mode: int) -> None:
    """Somebody else could put a token of theirs there."""
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match="can be written by other users") as caught:
        ensure_state_dir(tmp_path)
    tmp_path.chmod(0o700)
    assert "chmod 700" in caught.value.hint


def test_state_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ConfigError, match=r"state_dir .* is not a folder"):
        ensure_state_dir(tmp_path / "state")


def test_state_dir_that_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match="state_dir /proc/none/state"):
        ensure_state_dir(Path("/proc/none/state"))


def test_state_dir_without_permission(unprivileged: None) -> None:
    with pytest.raises(ConfigError, match="state_dir /usr is not writable") as caught:
        ensure_state_dir(Path("/usr"))
    assert caught.value.hint == "chmod 700 /usr, or choose another folder"
