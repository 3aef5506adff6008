"""What is looked at before a shell starts: the program that its words name."""

from __future__ import annotations

import pytest

from mhnos_runtime.errors import NotFound, Refused, StartFailed
from mhnos_runtime.process.shell import SHELL
from tests.process.context import Context


def test_a_program_whose_interpreter_is_hidden_is_told_before() -> None:
    """The shell says only that a required file is not found."""
    context = Context(no_program=StartFailed("/home/ann/python: processes do not see it", code="not-found"))
    with pytest.raises(StartFailed, match="/home/ann/python"):
        SHELL.hooks.check(".venv/bin/pip", ("install", "x"), context)
    assert context.looked_for == ["/home/ws/app/.venv/bin/pip"]


@pytest.mark.parametrize("error", [NotFound("x"), Refused("x")])
def test_what_the_shell_can_say_itself_is_left_to_it(error: Exception) -> None:
    SHELL.hooks.check("./run", (), Context(no_program=error))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "args"),
    [("", ()), ("ls", ("x",)), ("./a; ./b", ()), ("/usr/bin/ls", ("x",)), ("bash", ("-l",))],
)
def test_nothing_else_is_looked_at(command: str, args: tuple[str, ...]) -> None:
    context = Context()
    SHELL.hooks.check(command, args, context)
    assert context.looked_for == []
