"""Placeholders: what stands for each, and what of a client's text is never taken for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.process import openclaw, template, workerd
from mhnos_runtime.process.template import Values

VALUES = Values(
    command="app",
    args=("a", "{port}"),
    memory_mb=64,
    home="/ws",
    token="t0ken",
    control=103,
    ports={"main": 4000, "admin": 4001},
    sockets={"main": 100, "http": 101},
    named=("http",),
    engines={"node": "/engines/node"},
)


def test_what_stands_for_each() -> None:
    argv = (
        *(
            "{engine:node}",
            "--p={port}",
            "{port:admin}",
            "{socket}",
            "--m={memory_mb}",
            "{home}/x",
            "{token}",
        ),
        *("--control={control}", "--socket={name:*}={socket:*}", "{command}", "{args}"),
    )
    assert template.fill_all(argv, VALUES) == [
        *("/engines/node", "--p=4000", "4001", "100", "--m=64", "/ws/x", "t0ken"),
        *("--control=103", "--socket=http=101", "app", "a", "{port}"),
    ]


def test_what_is_no_placeholder_stays() -> None:
    for text in (
        "{}",
        "{name}",
        "{ports}",
        "{port:}",
        "{port:a b}",
        "{engine:}",
        "{engine:deno}",
        "{Command}",
        "{{x}}",
        "$HOME",
    ):
        assert template.fill(text, VALUES) == text


def test_nothing_named_is_nothing_handed() -> None:
    assert template.fill_all(("p", "--s={name:*}={socket:*}"), Values()) == ["p"]


@given(st.text(), st.lists(st.text()))
def test_a_client_s_text_comes_through_unchanged(command: str, args: list[str]) -> None:
    values = Values(command=command, args=tuple(args), ports={"main": 1})
    filled = template.fill_all(("p", "{port}", "{command}", "{args}"), values)
    assert filled == ["p", "1", *([command] if command else []), *args]


def test_the_names_that_a_template_asks_for() -> None:
    texts = ("{port:b}", "--x={port}:{port:b}", "{socket:*}", "{socket:s}")
    assert template.found(texts, "port") == ("b", "main")
    assert template.found(texts, "socket") == ("s",)
    assert template.found(openclaw.OPENCLAW.argv, "engine") == ("node", "openclaw")
    assert template.found(workerd.WORKERD.argv, "engine") == ("workerd",)
