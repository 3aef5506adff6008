"""Configs for workerd as text, and OpenClaw's command words. What the programs make of them is elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process import openclaw, workerd
from mhnos_runtime.process.kind import Interpreted
from mhnos_runtime.process.workerd import Options


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_literal(text: str) -> None:
    """Nothing in a binding ends its literal, or the line."""
    shown = workerd._text(text)
    assert re.fullmatch(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\x[0-9a-f]{2})*"', shown)
    assert json.loads(shown.replace("\\x", "\\u00")).encode("latin-1").decode() == text


def test_what_a_config_says() -> None:
    options = Options({"A": "b", "J": [1]}, ("E",), ("m.json",), "2026-01-02", ("nodejs_compat",), 64, "none")
    text = workerd.config("app.js", "/ws/", options)
    for part in (
        '(name = "app.js", esModule = embed "/ws/app.js")',
        '(name = "m.json", json = embed "/ws/m.json")',
        '(name = "A", text = "b")',
        '(name = "J", json = "[1]")',
        '(name = "E", fromEnvironment = "E")',
        'compatibilityDate = "2026-01-02"',
        '"nodejs_compat"',
        'v8Flags = ["--max-old-space-size=64"]',
        "allow = []",
    ):
        assert part in text
    assert "v8Flags" not in workerd.config("app.js", "", Options())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"compatibility_date": each} for each in ("", "today", "2026-1-1", '2026-01-01"')),
        *({"compatibility_flags": (each,)} for each in ("", "a b", 'x"', "UPPER")),
        *({"environment": (each,)} for each in ("", "A-B", "1A")),
        *({"modules": ("",)}, {"bindings": {"": ""}}, {"modules": ("a\0",)}, {"heap_mb": 1}),
    ],
)
def test_options_that_workerd_could_not_take(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        workerd.config("app.js", "", replace(Options(), **wrong))


@pytest.mark.parametrize(
    ("command", "args", "kept", "port"),
    [
        ("", (), (), 0),
        ("start", (), (), 0),
        ("gateway", (), (), 0),
        ("gateway", ("run", "--verbose"), ("--verbose",), 0),
        ("gateway", ("start", "--port", "8080"), (), 8080),
        ("start", ("--port=8080", "--verbose"), ("--verbose",), 8080),
    ],
)
def test_words_that_start_the_gateway(
    command: str, args: tuple[str, ...], kept: tuple[str, ...], port: int
) -> None:
    assert openclaw.interpret(command, args) == Interpreted(
        openclaw.OPENCLAW, kept, {"gateway": port} if port else {}
    )


@pytest.mark.parametrize(
    ("command", "args"),
    [("status", ()), ("config", ("get", "x")), ("gateway", ("health",)), ("--version", ())],
)
def test_words_that_do_not(command: str, args: tuple[str, ...]) -> None:
    assert openclaw.interpret(command, args) == Interpreted(openclaw.COMMAND, args)


def test_its_first_config() -> None:
    assert json.loads(openclaw.config("/workspace")) == {
        "gateway": {"mode": "local"},
        "logging": {"file": "/workspace/.openclaw/logs/openclaw.log"},
    }
