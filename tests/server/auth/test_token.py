"""The token's file: made once, refused when others can read it, followed when it changes."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path

import pytest

from mhnos_runtime.config import ConfigError
from mhnos_runtime.server.auth.token import (
    ensure_token,
    is_made_here,
    read_token,
    rotate_token,
    token_path,
)
from mhnos_runtime.testing import TestServer


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_made_at_first_start(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    assert path == token_path(state_dir)
    assert state_dir.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", read_token(state_dir))
    assert sorted(os.listdir(state_dir)) == ["token", "token.made"]


def test_kept_at_the_next_start(state_dir: Path) -> None:
    ensure_token(state_dir)
    token = read_token(state_dir)
    ensure_token(state_dir)
    assert read_token(state_dir) == token


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_mode_does_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    was = os.umask(umask)
    try:
        path = ensure_token(tmp_path / "s")
    finally:
        os.umask(was)
    assert path.stat().st_mode & 0o777 == 0o600


def test_of_many_starts_at_once_one_makes_the_token(state_dir: Path) -> None:
    seen: list[str] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        ensure_token(state_dir)
        seen.append(read_token(state_dir))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert sorted(os.listdir(state_dir)) == ["token", "token.made"]


def test_rotated(state_dir: Path) -> None:
    ensure_token(state_dir)
    old = read_token(state_dir)
    new = rotate_token(state_dir)
    assert new != old
    assert read_token(state_dir) == new
    assert token_path(state_dir).stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(state_dir)) == ["token", "token.made"]


def test_rotating_makes_one_where_there_is_none(state_dir: Path) -> None:
    assert rotate_token(state_dir) == read_token(state_dir)


def test_its_own_token_is_told_from_an_operator_s(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    assert is_made_here(state_dir)
    path.write_text("my.own~token-" + "x" * 30)
    assert not is_made_here(state_dir)
    rotate_token(state_dir)
    assert is_made_here(state_dir)


@pytest.mark.parametrize("note", [None, b"", b"0" * 64, b"\xff"])
def test_a_token_without_its_note_counts_as_the_operator_s(state_dir: Path, note: bytes | None) -> None:
    ensure_token(state_dir)
    (state_dir / "token.made").unlink()
    if note is not None:
        (state_dir / "token.made").write_bytes(note)
    assert not is_made_here(state_dir)


async def test_the_start_shows_its_own_token_where_a_setting_says_so_and_an_operator_s_never(
    tmp_path: Path,
) -> None:
    """Here stdout is a pipe, which is to a log what a terminal is not."""
    async with TestServer(tmp_path) as server:
        token = server.token
    assert token not in server.greeting
    assert "mhnos-runtime token shows it" in server.greeting
    async with TestServer(tmp_path, environment={"MHNOS_SHOW_TOKEN": "true"}) as server:
        assert f"/?token={token}\n" in server.greeting
    given = "my.own~token-" + "x" * 30
    (tmp_path / "state" / "token").write_text(given)
    async with TestServer(tmp_path, "--show-token") as server:
        pass
    assert given not in server.greeting + server.log.read_text()
    assert token not in server.log.read_text()


def test_token_of_an_operator(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    path.write_text("my.own~token-" + "x" * 30 + "\n\n")
    assert read_token(state_dir) == "my.own~token-" + "x" * 30


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_file_that_others_can_read(state_dir: Path, mode: int) -> None:
    path = ensure_token(state_dir)
    path.chmod(mode)
    for act in (read_token, ensure_token):
        with pytest.raises(ConfigError, match=rf"can be read by others \(mode {mode:04o}\)") as caught:
            act(state_dir)
        # Whoever could read it may know it.
        assert caught.value.hint == (
            "others may know this token: mhnos-runtime token --rotate makes a new one; "
            f"chmod 600 {path} keeps this one"
        )


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short", b"x" * 257, b"a b" * 20, b"\xff" * 40, b"x" * 40 + b"\ny"]
)
def test_damaged_file(state_dir: Path, content: bytes) -> None:
    path = ensure_token(state_dir)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is damaged: expected 32 to 256 of") as caught:
        read_token(state_dir)
    assert "token --rotate" in caught.value.hint


def test_missing_file(state_dir: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_token(state_dir)


def test_something_else_in_its_place(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="is not a file"):
        ensure_token(state_dir)
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(ConfigError, match="is not a file"):
        ensure_token(state_dir)


def test_dangling_link_is_not_written_through(state_dir: Path, tmp_path: Path) -> None:
    state_dir.mkdir(mode=0o700)
    token_path(state_dir).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be read"):
        ensure_token(state_dir)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_token(state_dir)


def test_a_token_that_is_mounted_is_not_replaced_and_no_draft_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ensure_token(tmp_path / "state")
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(ConfigError, match="cannot be replaced: Device or resource busy") as caught:
        rotate_token(tmp_path / "state")
    assert "mounted there" in caught.value.hint
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
