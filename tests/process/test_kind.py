"""A kind that is data alone: what its hooks do when it overrides none."""

from __future__ import annotations

import pytest

from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.process.kind import HANG_UP_MS, NO_HOOKS, Interpreted, Kind, Script
from tests.process.context import Context

KIND = Kind("deno", ("deno", "run", "{command}", "{args}"))


def test_its_data_is_all_that_there_is() -> None:
    assert KIND.hooks is NO_HOOKS
    assert (KIND.command, KIND.pty, KIND.single, KIND.ready) == ("script", False, False, None)
    assert KIND.hang_up_ms == HANG_UP_MS


def test_a_command_means_what_it_says() -> None:
    assert KIND.hooks.interpret(KIND, "x", ("a",)) == Interpreted(KIND, ("a",), {})


@pytest.mark.parametrize(
    ("command", "program"),
    [("app.ts", "app.ts"), ("./app.ts", "./app.ts"), ("/app/x.ts", "/home/ws/app/real.ts")],
)
def test_a_script_is_run_by_its_real_path_where_it_is_named_from_the_root(command: str, program: str) -> None:
    """The root of the workspace is elsewhere for the process; a relative path is not."""
    assert KIND.hooks.program(Script(command, "/app/real.ts", None), Context()) == (program, ())


def test_nothing_is_written_and_nothing_told() -> None:
    context = Context()
    KIND.hooks.write_files(context)
    assert context.files == Context().files
    assert KIND.hooks.environment(UNKNOWN) == KIND.hooks.environment(None) == {}
    assert KIND.hooks.variables(context, {"A": "b"}) == {}
    KIND.hooks.check("x", (), context)
    assert context.looked_for == []
