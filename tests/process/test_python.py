"""Which virtual environment Python runs in, and what is told where it cannot."""

from __future__ import annotations

import posixpath

import pytest

from mhnos_runtime.errors import Refused, StartFailed
from mhnos_runtime.process.python import LEVELS, PYTHON, nearest
from tests.process.context import Context


def has(*environments: str, cwd: str = "/app/src", **more: object) -> Context:
    files = {posixpath.join(each, "pyvenv.cfg"): "" for each in environments}
    files[f"{cwd.rstrip('/')}/main.py"] = ""
    programs = tuple(f"/home/ws{each}/bin/python3" for each in environments)
    return Context(files=files, cwd=cwd, **{"programs": programs, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ((), ""),
        (("/.venv",), "/.venv"),
        (("/app/venv", "/.venv"), "/app/venv"),
        (("/app/src/venv", "/app/src/.venv"), "/app/src/.venv"),
        (("/app/other/.venv", "/other/.venv", "/app/env"), ""),
    ],
)
def test_the_nearest_one_upwards(there: tuple[str, ...], found: str) -> None:
    assert nearest(has(*there)) == (found and "/home/ws" + found)


def test_a_folder_that_is_merely_called_so_is_none() -> None:
    assert nearest(Context(files={"/app/venv/main.py": ""})) == ""


def test_the_workspace_itself() -> None:
    assert nearest(has("/.venv", cwd="/")) == "/home/ws/.venv"


def test_no_more_than_some_folders_are_searched() -> None:
    deep = "/x" * (LEVELS - 1)
    assert nearest(has("/.venv", cwd=deep)) == "/home/ws/.venv"
    assert nearest(has("/.venv", cwd=deep + "/x")) == ""


def test_its_variables_are_those_of_an_activated_one() -> None:
    context = has("/app/.venv")
    assert PYTHON.hooks.variables(context, {}) == {
        "VIRTUAL_ENV": "/home/ws/app/.venv",
        "PATH": "/home/ws/app/.venv/bin:/usr/bin:/bin",
    }
    assert context.looked_for == ["/home/ws/app/.venv/bin/python3"]


def test_without_one_it_is_the_machines() -> None:
    assert PYTHON.hooks.variables(has(), {}) == {}


def test_a_client_that_chooses() -> None:
    context = has("/app/.venv", "/other")
    assert PYTHON.hooks.variables(context, {"PATH": "/own"}) == {}
    assert PYTHON.hooks.variables(context, {"VIRTUAL_ENV": "", "PATH": ""}) == {}
    assert PYTHON.hooks.variables(context, {"PATH": ""})["VIRTUAL_ENV"] == "/home/ws/app/.venv"
    for given in ("/home/ws/other", "../../other"):
        assert PYTHON.hooks.variables(context, {"VIRTUAL_ENV": given})["PATH"].startswith(
            "/home/ws/other/bin:"
        )


def test_one_that_cannot_be_used_is_not_passed_over() -> None:
    """The machine's Python once ran in its place."""
    hidden = StartFailed("/x is /home/ann/python: processes do not see it", code="not-found")
    context = has("/app/.venv", programs=(), no_program=hidden)
    with pytest.raises(StartFailed, match="cannot be used: /x is /home/ann/python") as failed:
        PYTHON.hooks.variables(context, {})
    assert failed.value.code == "not-found"
    assert "-e VIRTUAL_ENV=" in failed.value.hint


def test_one_that_leads_out_of_the_workspace_is_not_either() -> None:
    class Leads(Context):
        def has(self, path: str) -> bool:
            raise Refused("Leads outside", code="outside-workspace")

    with pytest.raises(StartFailed, match="Leads outside") as failed:
        PYTHON.hooks.variables(Leads(), {})
    assert failed.value.code == "outside-workspace"
