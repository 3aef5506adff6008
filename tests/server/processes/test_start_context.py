"""The workspace as hooks see it: real files, links, and sealed files in memory."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mhnos_runtime.errors import MhnosError, NotFound, Refused, StartFailed
from mhnos_runtime.files.confine import MAX_STEPS, Workspace
from mhnos_runtime.launch import FIRST_HANDED
from mhnos_runtime.process.kind import StartContext
from mhnos_runtime.sandbox import Sandbox
from mhnos_runtime.server.processes.ports import Handed
from mhnos_runtime.server.processes.programs import Programs
from mhnos_runtime.server.processes.start_context import WorkspaceContext
from tests.server.processes.scene import FACTS, NO_SANDBOX, descriptors


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    (root / "app" / "src").mkdir(parents=True)
    (root / "app" / "main.py").write_text("")
    (root / "app" / "src" / "lib.py").write_text("")
    (root / "link").symlink_to("app/main.py")
    (root / "out").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("nowhere")
    return root


@pytest.fixture
def context(root: Path) -> Iterator[WorkspaceContext]:
    handed = Handed()
    workspace = Workspace(root)
    programs = Programs(workspace, Sandbox(NO_SANDBOX, FACTS, str(root)))
    yield WorkspaceContext(workspace, programs, "/app", "/usr/bin", "host", handed)
    handed.close()
    workspace.close()


def test_it_is_what_hooks_take(context: WorkspaceContext, root: Path) -> None:
    seen: StartContext = context
    assert (seen.home, seen.cwd, seen.path) == (str(root), "/app", "/usr/bin")
    assert (seen.network, seen.dry) == ("host", False)


def test_whether_there_is_a_file(context: WorkspaceContext) -> None:
    assert context.has("main.py")
    assert context.has("/link")
    for missing in ("none.py", "/dangling", "main.py/x", "x" * 300):
        assert not context.has(missing)
    with pytest.raises(Refused):
        context.has("/out")


def test_so_many_steps_and_no_more_are_spent_on_looking(context: WorkspaceContext, root: Path) -> None:
    deep = root.joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    path = str(deep).removeprefix(str(root))
    assert sum(context.has(path) for _ in range(50)) == MAX_STEPS // 100
    assert context.real("main.py") == "/app/main.py", "what must be found has its own"


def test_a_program_is_looked_at_as_the_process_sees_it(context: WorkspaceContext, root: Path) -> None:
    context.program("/bin/sh")
    with pytest.raises(StartFailed):
        context.program(f"{root}/app/main.py")


@pytest.mark.parametrize(
    ("path", "base", "real"),
    [
        ("main.py", None, "/app/main.py"),
        ("/app/main.py", None, "/app/main.py"),
        ("/workspace/app/main.py", None, "/app/main.py"),
        ("lib.py", "/app/src", "/app/src/lib.py"),
        ("../link", None, "/app/main.py"),
        ("src", None, "/app/src"),
    ],
)
def test_where_a_file_really_is(context: WorkspaceContext, path: str, base: str | None, real: str) -> None:
    assert context.real(path, base) == real


@pytest.mark.parametrize(("path", "error"), [("none.py", NotFound), ("/out", Refused), ("/..", Refused)])
def test_what_is_not_in_the_workspace(context: WorkspaceContext, path: str, error: type[MhnosError]) -> None:
    with pytest.raises(error):
        context.real(path)


def test_a_name_is_spelled_without_a_look(context: WorkspaceContext) -> None:
    assert context.normalise("./src/../none.py") == "/app/none.py"
    assert context.normalise("/dangling") == "/dangling"


def test_a_file_is_written_where_there_is_none(context: WorkspaceContext, root: Path) -> None:
    assert context.write_new("/new/folder/a.txt", "text…")
    assert (root / "new/folder/a.txt").read_text() == "text…"
    for there in ("/new/folder/a.txt", "/app", "/link"):
        assert not context.write_new(there, "other")
    assert (root / "new/folder/a.txt").read_text() == "text…"
    assert (root / "app/main.py").read_text() == ""


def test_without_a_start_nothing_is_written(context: WorkspaceContext, root: Path) -> None:
    dry = replace(context, dry=True)
    assert dry.write_new("/a.txt", "text")
    assert dry.write_new("/app/main.py", "text")
    assert not (root / "a.txt").exists()
    assert (root / "app/main.py").read_text() == ""


@pytest.mark.parametrize("path", ["/out", "/app/main.py/x", "/../x", "/" + "x" * 256])
def test_what_cannot_be_written_is_an_error_of_the_start(context: WorkspaceContext, path: str) -> None:
    with pytest.raises(MhnosError) as refused:
        context.write_new(path, "text")
    assert refused.value.message


def test_a_file_that_cannot_be_written_is_an_error_of_the_start(context: WorkspaceContext) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        with pytest.raises(MhnosError, match="Larger than a file may be") as refused:
            context.write_new("/large", "text")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.code == "start-failed"


def test_a_file_in_memory_that_cannot_be_made_leaves_nothing(
    context: WorkspaceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(12, "no memory")

    before = descriptors()
    monkeypatch.setattr(fcntl, "fcntl", refuses)
    with pytest.raises(OSError, match="no memory"):
        context.hand("text")
    assert (descriptors(), context.handed.descriptors) == (before, [])


def test_nothing_is_written_through_a_link_to_nowhere(context: WorkspaceContext, root: Path) -> None:
    outside = root.parent / "outside"
    (root / "trap").symlink_to(outside)
    with pytest.raises(MhnosError):
        context.write_new("/trap", "text")
    assert not outside.exists()


def test_a_file_in_memory_is_sealed_and_closed_with_the_start(context: WorkspaceContext) -> None:
    assert [context.hand("first…"), context.hand("")] == [FIRST_HANDED, FIRST_HANDED + 1]
    fd = context.handed.descriptors[0]
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & seals == seals
    assert os.read(fd, 100) == "first…".encode()
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    assert not os.get_inheritable(fd)
