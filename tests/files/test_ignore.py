"""Rules of .gitignore files: as git has them, and in bounded time and memory, whatever they are."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhnos_runtime.files.ignore import MAX_BYTES, MAX_LINE_BYTES, MAX_LINES, USUAL, Ignore
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from tests.vectors import Case, document, each


@each("ignore")
def test_each_vector(case: Case) -> None:
    assert Ignore.of(case["lines"]).ignores(case["path"], case["isDirectory"]) == case["ignored"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def git_says(repository: Path, lines: list[str], paths: list[str], are_directories: bool) -> list[bool]:
    """Git looks at the disk for whether something is a directory; what is not there is none."""
    (repository / ".gitignore").write_bytes("\n".join(lines).encode())
    for path in paths if are_directories else ():
        (repository / path).mkdir(parents=True, exist_ok=True)
    command = "git -c core.excludesFile=/dev/null check-ignore --no-index -z -v -n --stdin"
    given = "".join(f"{path}\0" for path in paths).encode()
    said = subprocess.run(command.split(), cwd=repository, input=given, capture_output=True, check=False)
    assert said.returncode in (0, 1), said.stderr
    for path in {path.partition("/")[0] for path in paths if are_directories}:
        shutil.rmtree(repository / path)
    patterns = said.stdout.split(b"\0")[2::4]
    assert len(patterns) == len(paths)
    return [bool(pattern) and not pattern.startswith(b"!") for pattern in patterns]


def test_each_vector_is_what_git_says(repository: Path) -> None:
    for case in document("ignore")["cases"]:
        found = git_says(repository, case["lines"], [case["path"]], case["isDirectory"])
        assert found == [case["ignored"]], case["name"]


NAMES = st.sampled_from(
    ["a", "b", "ab", "a.b", ".a", "é", "a b", "]", "-", "[", "*", "\\", "!a", "#a", "A", "1"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ATOMS = st.one_of(
    st.sampled_from("ab.é1A /*?[]!^-:#\\"),
    st.sampled_from(
        ["/", "**/", "/**", "/**/", "[ab]", "[!a]", "[a-c]", "[[:alpha:]]", "[[:punct:]a]", "[]-]", r"\*"]
    ),
)
LINES = st.lists(ATOMS, max_size=7).map("".join).filter(lambda line: not has_git_s_slip(line))


def has_git_s_slip(line: str) -> bool:
    """Git compares what is in front of the first wildcard apart, and then takes `**` behind it for the start
    of a name, against its manual: `a**/b`."""
    at = line.find("**")
    return (at > 0 and line[at - 1] not in "/*") or "\\/" in line


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, min_size=1, max_size=4), paths=st.lists(PATHS, min_size=8, max_size=20))
def test_any_rules_are_as_git_has_them(repository: Path, lines: list[str], paths: list[str]) -> None:
    made = Ignore.of(lines)
    for are_directories in (False, True):
        found = [made.ignores(path, are_directories) for path in paths]
        assert found == git_says(repository, lines, paths, are_directories)


def test_a_walk_asks_of_each_path_alone() -> None:
    made = Ignore.of(["a/", "!a/b", "c"])
    assert [made.says(path, True) for path in ("a", "a/b", "a/c", "d")] == [True, False, True, None]
    assert made.says("a", False) is None
    assert made
    assert not Ignore.of(["# nothing", ""])


def test_names_that_are_no_text() -> None:
    assert Ignore.of(["a?c"]).says(os.fsdecode(b"a\xffc"), False)
    assert Ignore.of([os.fsdecode(b"a\xff")]).says(os.fsdecode(b"a\xff"), False)


def test_the_usual_lines() -> None:
    usual = Ignore.of(USUAL)
    assert all(usual.ignores(f"a/{line}x", False) for line in USUAL if line.endswith("/"))
    assert usual.ignores(f"a/{PARTIAL_PREFIX}1234", False)
    assert not any(usual.ignores(path, False) for path in ("src/a.py", ".gitignore", ".github/x", "dist/x"))


def test_bounds() -> None:
    assert Ignore.of([*["x"] * (MAX_LINES - 1), "a"]).ignores("a", False)
    assert not Ignore.of([*["x"] * MAX_LINES, "a"]).ignores("a", False)
    assert Ignore.of(["x" * (MAX_LINE_BYTES + 1), "a"]).ignores("a", False)
    assert not Ignore.of(["x" * MAX_LINE_BYTES] * (MAX_BYTES // MAX_LINE_BYTES) + ["a"]).ignores("a", False)


def test_rules_that_need_too_much_memory_together_are_matched_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mhnos_runtime.files.ignore._SET_MEMORY", 20_000)
    made = Ignore.of([*(f"x{number}*y" for number in range(30)), "*" + "?a" * 400])
    assert all(made.ignores(f"x{number}-y", False) for number in range(30))
    assert not made.ignores("ba" * 400, False)
    assert made.ignores("x2y", False)


@pytest.mark.parametrize(
    "line",
    [
        "*a" * 500 + "b",
        "a/" + "**/" * 300 + "b",
        "?*" * 500 + "x",
        "[!a]*" * 200 + "x",
        "**/" + "a*" * 500,
        "[[:alpha:]]" * 90,
    ],
    ids=["stars", "folders", "any", "brackets", "names", "classes"],
)
@pytest.mark.parametrize("times", [1, MAX_BYTES // 1024])
def test_rules_that_others_hang_on(line: str, times: int) -> None:
    """Backtracking takes longer than anybody lives for some of them."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.thread_time()
    made = Ignore.of([f"{line}{number}" for number in range(times)] + ["real"])
    assert time.thread_time() - begun < 2
    begun = time.thread_time()
    for path in ("a" * 255, "/".join(["a" * 100] * 40), "/".join(["a"] * 2048)):
        assert not made.says(path, False)
    assert time.thread_time() - begun < 5
    assert made.says("b/real", False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
