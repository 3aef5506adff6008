"""Where an address and a token come from, and where a token must not go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mhnos_runtime.client import ConnectFailed, discover


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    state = tmp_path / "mhnos-runtime"
    state.mkdir()
    (state / "token").write_text("secret\n")
    (state / "server.json").write_text(
        json.dumps({"url": "http://127.0.0.1:4000", "pid": 1, "serverId": "x"})
    )
    return {"XDG_STATE_HOME": str(tmp_path), "HOME": "/nowhere"}


def test_the_runtime_of_this_machine(env: dict[str, str]) -> None:
    found = discover(env=env)
    assert (found.url, found.token) == ("http://127.0.0.1:4000", "secret")
    assert "secret" not in repr(found)


def test_variables_come_before_files_and_flags_before_variables(env: dict[str, str], tmp_path: Path) -> None:
    env |= {"MHNOS_URL": "ws://localhost:5000/x", "MHNOS_TOKEN": "other"}
    assert discover(env=env).url == "http://localhost:5000/x"
    assert discover(env=env).token == "other"
    (tmp_path / "t").write_text("third\n")
    found = discover("wss://desk.example/", tmp_path / "t", env=env)
    assert (found.url, found.token, found.source) == ("https://desk.example/", "third", "--url")


def test_the_local_token_does_not_leave_this_machine(env: dict[str, str]) -> None:
    assert discover("https://elsewhere.example", env=env).token is None
    assert discover("http://desk.localhost:1", env=env).token is None
    assert discover("http://192.0.2.7:1", env=env).token is None
    for host in ("[::1]", "localhost", "127.1.2.3"):
        assert discover(f"http://{host}:1", env=env).token == "secret"


def test_a_token_in_the_address_is_taken_out_of_it(env: dict[str, str]) -> None:
    found = discover("http://h.example/?token=abc&x=1", env=env)
    assert (found.url, found.token) == ("http://h.example/", "abc")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 5}'])
def test_a_damaged_file_means_the_default(env: dict[str, str], tmp_path: Path, content: str) -> None:
    (tmp_path / "mhnos-runtime" / "server.json").write_text(content)
    found = discover(env=env)
    # While no runtime runs, anybody can listen there, and was shown the token.
    assert (found.url, found.token) == ("http://127.0.0.1:18790", None)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "://"])
def test_what_is_no_address_is_refused(env: dict[str, str], url: str) -> None:
    with pytest.raises(ConnectFailed, match="not an address"):
        discover(url, env=env)


def test_a_token_file_that_is_not_there_is_named(env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match="missing"):
        discover(None, tmp_path / "missing", env=env)


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_token_file_does_not_mean_the_operators_token(
    env: dict[str, str], tmp_path: Path, content: str
) -> None:
    """`token create ... > file` leaves one when it fails; what was to be done with less was done with all."""
    (tmp_path / "empty").write_text(content)
    with pytest.raises(ConnectFailed, match="empty is empty"):
        discover("http://127.0.0.1:1", tmp_path / "empty", env=env)
    with pytest.raises(ConnectFailed, match="cannot read the token file"):
        discover("http://127.0.0.1:1", "", env=env)


def test_a_relative_state_home_is_ignored() -> None:
    env = {"XDG_STATE_HOME": "relative", "HOME": "/home/x"}
    assert discover(env=env).source == "default"
