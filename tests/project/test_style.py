"""The figures of the style: short files, short functions, and a first line that says what a file is for."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator

from tests.project.checkout import parsed, python_files, shown

MAX_FILE_LINES = 500
# lines of a function's body without its docstring: 90 % are below the one, half at most the other
LONG_BODY_LINES = 40
MEDIAN_BODY_LINES = 8


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def functions() -> Iterator[tuple[str, int]]:
    for path in python_files("src"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{shown(path)}:{node.lineno} {node.name}", body_lines(node)


def test_files_are_short() -> None:
    lengths = {
        shown(p): p.read_text(encoding="utf-8").count("\n")
        for p in python_files("src", "tests", "benchmarks")
    }
    assert {name: lines for name, lines in lengths.items() if lines >= MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = dict(functions())
    long = {name: lines for name, lines in lengths.items() if lines >= LONG_BODY_LINES}
    assert len(long) <= 0.1 * len(lengths), long
    assert statistics.median(lengths.values()) <= MEDIAN_BODY_LINES


def test_every_file_opens_with_what_it_is_for() -> None:
    silent = [
        shown(path)
        for path in python_files("src", "tests", "benchmarks")
        if (tree := parsed(path)).body and ast.get_docstring(tree) is None
    ]
    assert silent == []
