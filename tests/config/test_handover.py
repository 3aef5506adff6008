"""Settings as one process hands them to another, which may be of an older or a newer version."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mhnos_runtime.config import SETTINGS, ConfigError, Settings, load
from mhnos_runtime.config.table import UserEnvironment
from tests.config.conftest import write_config


def test_handed_over_and_back(env: dict[str, str]) -> None:
    write_config(
        env,
        'max_memory = "1.5g"\nallow_origin = ["https://x.org"]\n'
        '[kinds.deno]\nargv = ["deno", "run", "{command}", "{args}"]\nenv = {NO_COLOR = "1"}\npty = true\n',
    )
    settings, _ = load({"port": "0"}, env)
    text = settings.to_json()
    assert "\n" not in text
    assert Settings.from_json(text) == settings


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS])
def test_what_an_older_version_does_not_hand_over_has_its_default(env: dict[str, str], name: str) -> None:
    """One that did not know `base_path` could not be reloaded into the version that did."""
    settings, _ = load({}, env)
    data = json.loads(settings.to_json())
    del data["settings"][name]
    (setting,) = (each for each in SETTINGS if each.name == name)
    default = setting.default_value(UserEnvironment(os.environ, Path("/")))
    assert getattr(Settings.from_json(json.dumps(data)), name) == default


def test_what_a_newer_version_hands_over_besides_is_passed_over(env: dict[str, str]) -> None:
    settings, _ = load({"max_processes": "7"}, env)
    data = json.loads(settings.to_json())
    data["settings"]["colour"] = {"of": ["the", "sky"]}
    data["weather"] = "fine"
    data["sources"]["colour"] = "flag --colour"
    found = Settings.from_json(json.dumps(data))
    assert replace(found, sources=settings.sources) == settings


def test_a_version_without_kinds_and_sources(env: dict[str, str]) -> None:
    settings, _ = load({}, env)
    data = json.loads(settings.to_json())
    found = Settings.from_json(json.dumps({"settings": data["settings"]}))
    assert found == replace(settings, kinds=(), sources={})
    assert found.source("port") == "default"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        '{"settings": 1}',
        '{"settings": {}, "kinds": 1}',
        '{"settings": {}, "sources": []}',
    ],
)
def test_damaged_hand_over(text: str) -> None:
    with pytest.raises(ConfigError, match="settings handed over are damaged"):
        Settings.from_json(text)


def test_hand_over_is_checked(env: dict[str, str]) -> None:
    text = load({}, env)[0].to_json().replace("18790", "99999")
    with pytest.raises(ConfigError, match='port is "99999" by hand-over'):
        Settings.from_json(text)
