"""What the import contracts in pyproject.toml cannot say: the supervisor has the standard library only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from tests.project.checkout import ROOT, parsed, python_files, shown

# Loaded into the supervisor, which has to stay small for a fork to stay cheap, and never meets the network.
SMALL = ("supervisor/", "output/", "channel.py", "launch.py", "proc.py", "errors.py")


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_the_supervisor_and_what_it_shares_import_only_the_standard_library() -> None:
    package = ROOT / "src" / "mhnos_runtime"
    small = [p for p in python_files("src") if p.relative_to(package).as_posix().startswith(SMALL)]
    allowed = sys.stdlib_module_names | {"mhnos_runtime"}
    foreign = [
        f"{shown(path)}: {name}"
        for path in small
        for name in imported(parsed(path))
        if name.partition(".")[0] not in allowed
    ]
    assert small
    assert foreign == []
