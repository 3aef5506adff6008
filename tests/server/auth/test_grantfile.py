"""The file of stored grants: real files, damaged in all ways, and writes that fail half-way."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mhnos_runtime.errors import Unavailable
from mhnos_runtime.server.auth import grantfile
from mhnos_runtime.server.auth.grantfile import MAX_GRANT_BYTES, MAX_GRANTS, GrantFile, Stored, key_of
from mhnos_runtime.server.auth.grants import Scope


def stored(name: str = "ann", number: int = 0, **fields: Any) -> Stored:
    return Stored(name=name, scopes=[Scope.VIEW], digest=f"{number:064x}", created=1, **fields)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def file(state_dir: Path) -> GrantFile:
    return GrantFile(state_dir)


def asides(state_dir: Path) -> list[Path]:
    return list(state_dir.glob("grants.json.set-aside.*"))


def test_there_are_none_at_first_and_no_file_is_made(file: GrantFile, state_dir: Path) -> None:
    assert file.load() == ([], "")
    assert not file.changed()
    assert list(state_dir.iterdir()) == []


def test_what_is_saved_is_loaded(file: GrantFile, state_dir: Path) -> None:
    grants = [
        stored("ann", 1, expires=2, last_used=3),
        stored("bob", 2, processes=[1000], server_id="x", paths=["/é"], ports=[80]),
    ]
    previous = os.umask(0)
    try:
        file.save(grants)
    finally:
        os.umask(previous)
    assert (state_dir / "grants.json").stat().st_mode & 0o777 == 0o600
    assert GrantFile(state_dir).load() == (grants, "")
    file.save([])
    assert GrantFile(state_dir).load() == ([], "")
    assert [path.name for path in state_dir.iterdir()] == ["grants.json"]


def test_the_most_and_largest_grants_are_loaded_again_after_they_were_used(
    file: GrantFile, state_dir: Path
) -> None:
    """The time of the last use made them longer than the bound on the file: all were set aside."""
    longest = next(
        grant
        for length in range(MAX_GRANT_BYTES // 2, 0, -1)
        if (grant := stored(paths=["/" + "x" * length, "/" + "y" * 2000])).fits()
    )
    grants = [
        msgspec.structs.replace(longest, name=f"{number:03}", digest=f"{number:064x}", last_used=2**53)
        for number in range(MAX_GRANTS)
    ]
    file.save(grants)
    assert (state_dir / "grants.json").stat().st_size > 0.99 * MAX_GRANTS * MAX_GRANT_BYTES
    assert GrantFile(state_dir).load() == (grants, "")


GOOD = {"name": "ann", "scopes": ["view"], "digest": "0" * 64, "created": 1}
DAMAGED: dict[str, Any] = {
    "nothing": b"",
    "zeros": bytes(4096),
    "half": b'{"version":1,"grants":[{"na',
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"version":1,"grants":[],"x":"\xff"}',
    "another version": {"version": 2, "grants": []},
    "a field of another version": {"version": 1, "grants": [{**GOOD, "onlyOnSundays": True}]},
    "no digest": {"version": 1, "grants": [{**GOOD, "digest": ""}]},
    "a scope that is none": {"version": 1, "grants": [{**GOOD, "scopes": ["root"]}]},
    "a name that is none": {"version": 1, "grants": [{**GOOD, "name": "a\nb"}]},
    "two of a name": {"version": 1, "grants": [GOOD, {**GOOD, "name": "ANN", "digest": "1" * 64}]},
    "two of a token": {"version": 1, "grants": [GOOD, {**GOOD, "name": "bob"}]},
    "no processes": {"version": 1, "grants": [{**GOOD, "processes": []}]},
    "too many": {
        "version": 1,
        "grants": [{**GOOD, "name": f"a{n}", "digest": f"{n:064x}"} for n in range(MAX_GRANTS + 1)],
    },
    "too long": b" " * (grantfile.MAX_FILE_BYTES + 1),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_kept_aside_and_grants_nothing(file: GrantFile, state_dir: Path, kind: str) -> None:
    data = DAMAGED[kind]
    data = data if isinstance(data, bytes) else msgspec.json.encode(data)
    (state_dir / "grants.json").write_bytes(data)
    (state_dir / "grants.json").chmod(0o600)
    grants, problem = file.load()
    assert grants == []
    (aside,) = asides(state_dir)
    assert str(aside) in problem
    assert aside.read_bytes() == data
    assert file.changed()
    file.save([stored()])
    assert GrantFile(state_dir).load() == ([stored()], "")


def _open_to_others(path: Path) -> None:
    path.chmod(0o660)


def _folder_open_to_others(path: Path) -> None:
    path.parent.chmod(0o777)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("change", [_open_to_others, _folder_open_to_others, _link, _fifo, _folder, _device])
def test_what_others_could_have_put_there_grants_nothing(
    file: GrantFile, state_dir: Path, change: Callable[[Path], None]
) -> None:
    file.save([stored()])
    change(state_dir / "grants.json")
    grants, problem = GrantFile(state_dir).load()
    assert grants == []
    assert problem
    assert len(asides(state_dir)) == 1


def test_a_change_by_somebody_else_is_seen(file: GrantFile, state_dir: Path) -> None:
    path = state_dir / "grants.json"
    assert file.load() == ([], "")
    path.write_text("{}")
    assert file.changed()
    for change in (_open_to_others, _link, _fifo, lambda path: path.unlink()):
        file.save([stored()])
        assert not file.changed()
        change(path)
        assert file.changed()
        path.unlink(missing_ok=True)
    file.save([stored()])
    later = GrantFile(state_dir)
    later.load()
    assert not later.changed()


def test_a_file_that_cannot_be_seen_counts_as_changed(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    file = GrantFile(state_dir)
    file.save([stored()])
    state_dir.rename(tmp_path / "away")
    state_dir.write_text("no folder")
    assert file.changed()
    with pytest.raises(Unavailable, match="Not a directory"):
        file.save([stored()])


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "fsync of the folder"])
def test_a_write_that_fails_leaves_the_old_state_and_no_draft(
    file: GrantFile, state_dir: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file.save([stored()])
    calls: list[str] = []

    def full(*_args: Any, **_options: Any) -> None:
        calls.append(call)
        if call != "fsync of the folder" or len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call.split(maxsplit=1)[0], full)
        with pytest.raises(Unavailable, match="could not be written: No space left on device") as caught:
            file.save([stored(), stored("bob", 1)])
    assert "state directory" in caught.value.hint
    # The folder's fsync comes when the new state is there: what it fails for is written again.
    assert file.changed()
    assert [path.name for path in state_dir.iterdir()] == ["grants.json"]
    if call != "fsync of the folder":
        assert GrantFile(state_dir).load() == ([stored()], "")
    file.save([stored()])
    assert not file.changed()


def test_a_write_that_is_cut_short_leaves_the_old_state(file: GrantFile, state_dir: Path) -> None:
    file.save([stored()])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(Unavailable, match="File too large"):
            file.save([stored(f"a{number}", number) for number in range(500)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in state_dir.iterdir()] == ["grants.json"]
    assert GrantFile(state_dir).load() == ([stored()], "")


def test_drafts_of_a_server_that_was_killed_are_removed(file: GrantFile, state_dir: Path) -> None:
    file.save([stored()])
    (state_dir / ".grants.json.0123456789abcdef").write_text("{")
    assert GrantFile(state_dir).load() == ([stored()], "")
    assert [path.name for path in state_dir.iterdir()] == ["grants.json"]


def test_a_file_that_cannot_be_moved_aside_is_said(
    file: GrantFile, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state_dir / "grants.json").write_text("{")

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", read_only)
    grants, problem = file.load()
    assert grants == []
    assert "could not be moved aside: Read-only file system" in problem


def test_names() -> None:
    for good in ("a", "Ann's".replace("'", "_"), "ann@example.org", "a b", "0", "a" * 64, "x.y-z_+"):
        assert grantfile.NAME.match(good)
    for bad in ("", " a", "a ", ".a", "-a", "a/b", "a\n", "é", "a" * 65, "a%41", "a\x00"):
        assert not grantfile.NAME.match(bad)
    assert key_of("Ann") == key_of("aNN")
    assert grantfile.principal("operator") != "operator"
