"""Scripts as Node.js finds them: names without an ending, folders, and what is not there."""

from __future__ import annotations

import pytest

from mhnos_runtime.errors import Refused
from mhnos_runtime.process.kind import Script
from mhnos_runtime.process.node import NODE
from tests.process.context import Context

FILES = {"/app/server.js": "", "/app/server": "", "/app/lib.json": "", "/app/add.node": "", "/app/dir/x": ""}


@pytest.mark.parametrize(
    ("command", "real"),
    [
        ("server", "/app/server"),
        ("server.js", "/app/server.js"),
        ("lib", "/app/lib.json"),
        ("/app/add", "/app/add.node"),
        ("dir", "/app/dir"),
        ("none", "/app/none"),
        ("/none", "/none"),
    ],
)
def test_where_a_script_is(command: str, real: str) -> None:
    """`run node server` once said that there is no such file, where Node finds server.js."""
    assert NODE.hooks.real(command, Context(files=dict(FILES))) == real


def test_a_script_from_the_root_is_run_by_the_path_that_it_has_for_the_process() -> None:
    context = Context(files=dict(FILES))
    for command, program in (
        ("/app/lib", "/home/ws/app/lib.json"),
        ("/none", "/home/ws/none"),
        ("lib", "lib"),
    ):
        script = Script(command, NODE.hooks.real(command, context), None)
        assert NODE.hooks.program(script, context) == (program, ())


def test_a_name_that_leads_out_is_refused_whatever_its_ending() -> None:
    class Leads(Context):
        def real(self, path: str, base: str | None = None) -> str:
            if path.endswith(".json"):
                raise Refused("outside")
            return super().real(path, base)

    with pytest.raises(Refused):
        NODE.hooks.real("none", Leads())
