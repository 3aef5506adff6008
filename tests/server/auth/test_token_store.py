"""Which token is in force while its file changes. A process that changed the mode of the file locked
everybody out, and left a token that others could read."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.config import ConfigError
from mhnos_runtime.server.auth.token import ensure_token, read_token, rotate_token, token_path
from mhnos_runtime.server.auth.token_store import Known, TokenStore, learn


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> TokenStore:
    return TokenStore(ensure_token(state_dir))


def old_clock() -> int:
    """A time at which every file is so old that its times are trusted."""
    return 1 << 62


def test_matches_only_the_token(state_dir: Path, store: TokenStore) -> None:
    token = read_token(state_dir)
    assert store.matches(token)
    for wrong in (
        "",
        token[:-1],
        token + "x",
        token + "\n",
        token.swapcase(),
        "é" * 43,
        "\udcff",
        "x" * 10**6,
    ):
        assert not store.matches(wrong)


def test_says_nothing_of_the_token(state_dir: Path, store: TokenStore) -> None:
    token = read_token(state_dir)
    assert store.matches(token)
    assert token not in repr(vars(store))


def test_old_token_stops_at_once(state_dir: Path, store: TokenStore) -> None:
    """Also when rotations follow each other faster than file times advance and inodes are used again."""
    token = read_token(state_dir)
    for _ in range(30):
        assert store.matches(token)
        old, token = token, rotate_token(state_dir)
        assert not store.matches(old)
        assert store.matches(token)


def test_rewritten_in_place_within_one_tick_of_the_clock(state_dir: Path, store: TokenStore) -> None:
    path = token_path(state_dir)
    for _ in range(50):
        token = secrets.token_urlsafe(32)
        path.write_text(token)
        assert store.matches(token)


def test_unchanged_old_file_is_read_once(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ensure_token(state_dir)
    token = read_token(state_dir)
    store = TokenStore(path, now_ns=old_clock)
    assert store.matches(token)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("read again"))
    assert store.matches(token)
    assert not store.matches("x" * 43)


def test_at_most_one_stat_a_check(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ensure_token(state_dir)
    store = TokenStore(path, now_ns=old_clock)
    token = read_token(state_dir)
    store.matches(token)
    calls = 0
    stat = os.stat

    def counted(*args: object, **options: object) -> os.stat_result:
        nonlocal calls
        calls += 1
        return stat(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", counted)
    assert store.matches(token)
    monkeypatch.undo()
    assert calls == 1


def test_empty_text_never_matches_an_empty_file(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    path.write_text("")
    assert not TokenStore(path).matches("")


# --- what may happen to the file while a server runs


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """What is made in the place of the file."""

    def replaced(path: Path) -> None:
        path.unlink()
        make(path)

    return replaced


TABLE: list[tuple[str, Callable[[Path], object], bool, str]] = [
    # what, what happens to the file, whether the known token stays in force, what is said
    ("read by others", lambda path: path.chmod(0o644), True, "can be read by others (mode 0644)"),
    ("written by others", lambda path: path.chmod(0o666), True, "can be read by others (mode 0666)"),
    ("folder written by others", lambda path: path.parent.chmod(0o777), True, ""),
    ("folder read by others", lambda path: path.parent.chmod(0o755), True, ""),
    ("removed", lambda path: path.unlink(), False, "cannot be read: No such file"),
    ("emptied", lambda path: path.write_text(""), False, "is damaged"),
    ("damaged", lambda path: path.write_text("x"), False, "is damaged"),
    ("huge", lambda path: os.truncate(path, 1 << 40), False, "is damaged"),
    ("a folder", instead(Path.mkdir), False, "is not a file"),
    ("a FIFO", instead(lambda path: os.mkfifo(path, 0o600)), False, "is not a file"),
    ("a dangling link", instead(lambda path: path.symlink_to("nowhere")), False, "cannot be read"),
    ("a link in a circle", instead(lambda path: path.symlink_to("token")), False, "cannot be read"),
    ("a device", instead(lambda path: path.symlink_to("/dev/zero")), False, "is not a file"),
]


@pytest.mark.parametrize(
    ("happens", "stays", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
@pytest.mark.parametrize("restarted", [False, True])
def test_what_becomes_of_the_known_token(
    state_dir: Path, happens: Callable[[Path], object], stays: bool, said: str, restarted: bool
) -> None:
    """restarted: by a server that starts when it has happened, and is told what the last one knew."""
    path = ensure_token(state_dir)
    token = read_token(state_dir)
    store = TokenStore(path, learn(path), now_ns=old_clock)
    assert store.matches(token)
    assert store.known is not None
    happens(path)
    if restarted:
        store = TokenStore(path, Known.from_dict(store.known.to_dict()), now_ns=old_clock)
    for _ in range(3):
        assert store.matches(token) is stays
        assert store.in_force is stays
        assert not store.matches("")
        assert said in store.problem
    path.parent.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("restarted", [False, True])
def test_the_file_is_given_to_another_user(state_dir: Path, restarted: bool) -> None:
    path = ensure_token(state_dir)
    token = read_token(state_dir)
    store = TokenStore(path, learn(path))
    assert store.matches(token)
    os.chown(path, 12345, 12345)
    if restarted:
        store = TokenStore(path, store.known)
    assert store.matches(token)
    assert "belongs to another user" in store.problem


def test_nobody_can_look() -> None:
    """The folder or the file is closed by a mode of 0000; root passes by that, so another user tries."""
    was = os.geteuid()
    folder = Path(tempfile.mkdtemp())
    if was == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        path = ensure_token(folder)
        token = read_token(folder)
        for closed in (path, folder):
            store = TokenStore(path, learn(path))
            mode = closed.stat().st_mode
            closed.chmod(0)
            assert store.matches(token)
            assert "Permission denied" in store.problem
            assert "chmod" in store.problem
            closed.chmod(mode)
            assert store.matches(token)
            assert store.problem == ""
    finally:
        os.seteuid(was)
        shutil.rmtree(folder)


def test_a_first_look_at_what_is_not_fit_lets_nobody_in(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    token = read_token(state_dir)
    path.chmod(0o644)
    store = TokenStore(path)
    assert not store.matches(token)
    assert not store.in_force


def test_rotation_is_asked_for_until_it_is_done(state_dir: Path) -> None:
    """Also when the mode is put right: whoever read the token meanwhile knows it."""
    path = ensure_token(state_dir)
    token = read_token(state_dir)
    store = TokenStore(path, learn(path), now_ns=old_clock)
    path.chmod(0o644)
    assert store.matches(token)
    path.chmod(0o600)
    assert store.matches(token)
    assert "was open to others" in store.problem
    assert "token --rotate" in store.problem
    new = rotate_token(state_dir)
    assert store.matches(new)
    assert not store.matches(token)
    assert store.problem == ""


def test_what_others_wrote_is_not_put_in_force(state_dir: Path) -> None:
    """The file is opened to all, another user writes a token of theirs, and the mode is put back."""
    path = ensure_token(state_dir)
    token, theirs = read_token(state_dir), "x" * 43
    store = TokenStore(path, learn(path))
    path.chmod(0o666)
    assert store.matches(token)
    path.write_text(theirs)
    for mode in (0o666, 0o600):
        path.chmod(mode)
        assert not store.matches(theirs)
        assert store.matches(token)
    assert "and changed, which is not followed" in store.problem


def test_what_others_spoilt_locks_nobody_out(state_dir: Path) -> None:
    """The file is opened to all, another user empties it, and the mode is put back."""
    path = ensure_token(state_dir)
    token = read_token(state_dir)
    store = TokenStore(path, learn(path))
    path.chmod(0o666)
    assert store.matches(token)
    path.write_text("")
    path.chmod(0o600)
    assert store.matches(token)
    assert store.problem
    path.unlink()
    assert not store.matches(token)


def test_what_others_put_there_is_not_put_in_force(state_dir: Path, tmp_path: Path) -> None:
    """The folder is opened to all, and another user puts a file of a process there, which is the runtime's
    user's."""
    path = ensure_token(state_dir)
    token, theirs = read_token(state_dir), "x" * 43
    store = TokenStore(path, learn(path))
    assert store.matches(token)
    state_dir.chmod(0o777)
    (tmp_path / "theirs").write_text(theirs)
    (tmp_path / "theirs").chmod(0o600)
    (tmp_path / "theirs").rename(path)
    assert not store.matches(theirs)
    assert store.matches(token)
    assert "can be written by other users (mode 0777)" in store.problem
    state_dir.chmod(0o700)
    assert not TokenStore(path, store.known).matches(theirs)
    assert not store.matches(theirs)
    assert store.matches(token)
    assert "was put there while others could" in store.problem
    path.chmod(0o644)
    assert store.matches(token)
    path.chmod(0o600)
    new = rotate_token(state_dir)
    assert store.matches(new)
    assert not store.matches(token)


def test_a_file_of_an_operator_that_is_open_to_others_is_refused(state_dir: Path, tmp_path: Path) -> None:
    path = ensure_token(state_dir)
    token = read_token(state_dir)
    store = TokenStore(path, learn(path))
    (tmp_path / "new").write_text("y" * 43)
    (tmp_path / "new").chmod(0o644)
    (tmp_path / "new").rename(path)
    assert not store.matches("y" * 43)
    assert not store.matches(token)
    assert "can be read by others" in store.problem
    path.chmod(0o600)
    assert store.matches("y" * 43)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"digest": 1, "device": 1, "inode": 1},
        {"digest": "x", "who": 1},
        {"digest": "xy", "device": 1, "inode": 1},
        {"digest": "ab", "device": "1", "inode": 1},
        {"digest": "ab", "device": 1, "inode": 1, "exposed": 1},
        {"digest": "ab", "device": 1, "inode": [1]},
    ],
)
def test_a_record_that_is_none_leaves_the_file_to_say_it(
    data: dict[str, object] | None, state_dir: Path
) -> None:
    """A server that was taken over could have the next one fail at its start, and so each after it."""
    assert Known.from_dict(data) is None
    path = ensure_token(state_dir)
    assert TokenStore(path, Known.from_dict(data)).matches(read_token(state_dir))


def test_to_learn_what_is_not_fit_is_refused(state_dir: Path) -> None:
    path = ensure_token(state_dir)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        learn(path)
