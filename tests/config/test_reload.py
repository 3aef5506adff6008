"""What a reload finds of the settings of a runtime that was started long ago, and what it makes of that."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.config import SETTINGS, ConfigError, Settings, load, load_again
from mhnos_runtime.config.__main__ import answer, main
from mhnos_runtime.config.reload import VARIABLES_FILE, Change, applied, bring, changes, take
from tests.config.conftest import write_config

DESK, LAB = "https://desk.example", "https://lab.example"


def started(env: dict[str, str], **flags: object) -> Settings:
    """As the runtime has them after a hand-over."""
    return Settings.from_json(load(flags, env)[0].to_json())


def test_nothing_has_changed_where_nobody_changed_anything(env: dict[str, str]) -> None:
    write_config(env, f'allow_origin = ["{DESK}"]\nmax_memory = "1.5g"\n[kinds.x]\nargv = ["x"]\n')
    given = env | {"MHNOS_RETAIN_SECONDS": "604799.123456", "MHNOS_ALLOW_HOST": "box.example,localhost:1"}
    running = started(given, port="0", allow_openclaw=True, tls_cert=None, workspace="/tmp/w")
    assert load_again(running, {}, env) == running
    assert changes(running, load_again(running, {}, env)) == []


@pytest.mark.parametrize(
    ("flags", "variables", "told", "expected"),
    [
        ({}, {}, {}, (LAB, "file")),
        ({"allow_origin": (DESK,)}, {}, {}, (DESK, "flag --allow-origin")),
        ({}, {"MHNOS_ALLOW_ORIGIN": DESK}, {}, (DESK, "variable MHNOS_ALLOW_ORIGIN")),
        ({}, {"MHNOS_ALLOW_ORIGIN": DESK}, {"MHNOS_ALLOW_ORIGIN": "null"}, ("null", "variable")),
        ({}, {}, {"MHNOS_ALLOW_ORIGIN": "null"}, ("null", "variable MHNOS_ALLOW_ORIGIN")),
        ({"allow_origin": (DESK,)}, {}, {"MHNOS_ALLOW_ORIGIN": "null"}, (DESK, "flag --allow-origin")),
        ({}, {}, {"MHNOS_ALLOW_ORIGIN": ""}, (LAB, "file")),
    ],
)
def test_flags_over_variables_over_the_file_as_at_a_start(
    env: dict[str, str], flags: Any, variables: Any, told: Any, expected: tuple[str, str]
) -> None:
    running = started(env | variables, **flags)
    write_config(env, f'allow_origin = ["{LAB}"]\n')
    found = load_again(running, told, env)
    value, source = expected
    assert found.allow_origin == (value,)
    assert found.source("allow_origin").startswith(source)
    # And so at the next reload, which brings nothing.
    assert load_again(applied(running, found), {}, env).allow_origin == (value,)


def test_the_folder_of_the_command_line_is_still_there_at_a_reload(env: dict[str, str]) -> None:
    given = started(env, workspace="/tmp/w")
    running = replace(given, sources={**given.sources, "workspace": "argument FOLDER"})
    assert changes(running, load_again(running, {}, env)) == []


def test_what_clients_read_needs_no_reload(env: dict[str, str]) -> None:
    running = started(env)
    write_config(env, 'detach_keys = "ctrl-]"\n')
    assert changes(running, load_again(running, {}, env)) == []


def test_only_some_variables_may_be_brought(env: dict[str, str]) -> None:
    running = started(env)
    found = load_again(running, {"MHNOS_MAX_PROCESSES": "7", "MHNOS_AUTH": "none", "X": "y"}, env)
    assert found == running


def test_what_a_reload_applies_and_what_waits(env: dict[str, str]) -> None:
    file = write_config(env, 'max_processes = 5\n[kinds.old]\nargv = ["a"]\n[kinds.same]\nargv = ["b"]\n')
    running = started(env, max_tasks="9")
    write_config(
        env,
        f'allow_host = ["box.example"]\nallow_origin = ["{DESK}"]\nmax_tasks = 3\nmax_memory = "2g"\n'
        '[kinds.same]\nargv = ["b"]\npty = true\n[kinds.new]\nargv = ["c", "d"]\n',
    )
    found = load_again(running, {}, env)
    assert changes(running, found) == [
        Change("max_processes", "5", "50", "default", False),
        Change("max_memory", "1g", "2g", f"file {file}:max_memory", False),
        Change("allow_origin", "", DESK, f"file {file}:allow_origin", True),
        Change("allow_host", "", "box.example", f"file {file}:allow_host", True),
        Change("kinds.old", "a", "", "default", False),
        Change("kinds.same", "b", "b", f"file {file}:kinds.same", False),
        Change("kinds.new", "", "c d", f"file {file}:kinds.new", False),
    ]
    after = applied(running, found)
    assert [each.name for each in changes(running, after)] == ["allow_origin", "allow_host"]
    assert [each.name for each in SETTINGS if each.reloads] == ["allow_origin", "allow_host"]
    assert (after.max_processes, after.kinds) == (5, running.kinds)


def test_the_file_that_was_named_at_the_start_is_read_again(env: dict[str, str], tmp_path: Path) -> None:
    named = tmp_path / "named.toml"
    named.write_text("")
    running = started(env, config=str(named))
    write_config(env, 'allow_host = ["wrong.example"]\n')
    assert load_again(running, {}, env) == running
    named.write_text('allow_host = ["box.example"]\n')
    assert load_again(running, {}, env).allow_host == ("box.example",)
    named.unlink()
    with pytest.raises(ConfigError, match=r"named\.toml cannot be read: No such file"):
        load_again(running, {}, env)


def test_a_file_that_came_after_the_start_is_found(env: dict[str, str]) -> None:
    running = started(env)
    write_config(env, 'allow_host = ["box.example"]\n')
    assert load_again(running, {}, env).allow_host == ("box.example",)


# What is brought along


def test_variables_are_brought_once(tmp_path: Path) -> None:
    environ = {"MHNOS_ALLOW_ORIGIN": DESK, "MHNOS_ALLOW_HOST": "", "MHNOS_TOKEN": "secret", "PATH": "/bin"}
    bring(tmp_path, environ)
    assert (tmp_path / VARIABLES_FILE).stat().st_mode & 0o777 == 0o600
    assert take(tmp_path) == {"MHNOS_ALLOW_ORIGIN": DESK}
    assert take(tmp_path) == {}
    bring(tmp_path, environ)
    bring(tmp_path, {})
    assert not (tmp_path / VARIABLES_FILE).exists()


def _others(path: Path) -> None:
    path.write_text('{"MHNOS_ALLOW_HOST": "x"}')
    os.chmod(path, 0o666)


def _link(path: Path) -> None:
    path.with_suffix(".else").write_text('{"MHNOS_ALLOW_HOST": "x"}')
    path.symlink_to(path.with_suffix(".else"))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        _others,
        _link,
        os.mkfifo,
        Path.mkdir,
        lambda path: path.write_text("no JSON"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_text(json.dumps({"MHNOS_ALLOW_HOST": "x" * 100_000})),
    ],
)
def test_what_others_could_have_put_there_counts_for_nothing(tmp_path: Path, make: Any) -> None:
    make(tmp_path / VARIABLES_FILE)
    assert take(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_brings_is_the_runtime_s(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    bring(tmp_path, {"MHNOS_ALLOW_ORIGIN": DESK})
    assert (tmp_path / VARIABLES_FILE).stat().st_uid == 65534
    assert take(tmp_path) == {}, "it is not root's"


# The program


def test_the_program_answers_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("MHNOS_CONFIG", raising=False)
    env = {"HOME": str(tmp_path), "MHNOS_STATE_DIR": str(tmp_path)}
    running = started(env)
    write_config(env, "max_processes = 7\n")
    bring(tmp_path, {"MHNOS_ALLOW_HOST": "box.example"})
    path = tmp_path / "told"
    path.write_text(json.dumps({"settings": running.to_json()}) + " " * 100_000)
    main(os.open(path, os.O_RDWR))
    told = json.loads(path.read_text())
    after = Settings.from_json(told["settings"])
    assert (after.allow_host, after.max_processes, told["problem"]) == (("box.example",), 50, "")
    assert {each["name"]: each["reloads"] for each in told["changes"]} == {
        "max_processes": False,
        "allow_host": True,
    }


def test_a_mistake_is_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("MHNOS_CONFIG", raising=False)
    running = started({"HOME": str(tmp_path), "MHNOS_STATE_DIR": str(tmp_path)}).to_json()
    write_config({"HOME": str(tmp_path)}, 'allow_origin = ["*"]\n')
    told = answer(running)
    assert (told["settings"], told["changes"]) == (running, [])
    assert "a wildcard would let every web page in" in told["problem"]
    assert "damaged" in answer("{}")["problem"]
