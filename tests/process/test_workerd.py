"""workerd's kind: configs as text, and what its hook makes of a script. What workerd takes is elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest, NotFound
from mhnos_runtime.process import workerd
from mhnos_runtime.process.kind import Script
from mhnos_runtime.process.workerd import SOCKET, WORKERD, Options
from mhnos_runtime.wire.messages import WorkerOptions
from tests.process.context import Context

HELLO = Script("hello.js", "/app/hello.js", None)


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


def test_a_worker_runs_from_a_config_in_memory_or_where_it_is_to_be_kept() -> None:
    context = Context()
    assert WORKERD.hooks.program(HELLO, context) == ("/proc/self/fd/100", (SOCKET,))
    assert 'embed "/home/ws/app/hello.js"' in context.handed[0]
    kept = replace(HELLO, worker=WorkerOptions(keep="hello.capnp", modules=["lib.txt"]))
    assert WORKERD.hooks.program(kept, context) == ("hello.capnp", (SOCKET,))
    assert 'embed "hello.js"' in context.files["/app/hello.capnp"]
    with pytest.raises(InvalidRequest, match="is there already"):
        WORKERD.hooks.program(kept, context)
    with pytest.raises(NotFound):
        WORKERD.hooks.program(replace(HELLO, worker=WorkerOptions(modules=["no.txt"])), context)


def test_a_worker_reaches_nothing_where_its_network_does_not() -> None:
    context = Context(network="none")
    WORKERD.hooks.program(HELLO, context)
    assert "(allow = []," in context.handed[0]


@pytest.mark.parametrize(
    ("cwd", "told"), [("/app", "c.capnp"), ("/", "app/c.capnp"), ("/other", "/home/ws/app/c.capnp")]
)
def test_a_config_of_the_client_is_run_as_it_is(cwd: str, told: str) -> None:
    script = Script("/app/c.capnp", "/app/c.capnp", None)
    assert WORKERD.hooks.program(script, Context(cwd=cwd)) == (told, ())
    with pytest.raises(InvalidRequest, match="is a config"):
        WORKERD.hooks.program(replace(script, worker=WorkerOptions()), Context(cwd=cwd))
