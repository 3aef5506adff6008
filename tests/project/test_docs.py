"""What the docs say of settings, log messages and exit codes is what the code has; links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime import config
from mhnos_runtime.cli import exits
from mhnos_runtime.cli.node import find_node
from mhnos_runtime.testing import TestServer
from tests.project.checkout import ROOT, files, parsed, python_files, shown

PAGES = [path for path in files() if path.suffix == ".md"]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

LINK = re.compile(r"\]\(([^)\s]+)\)")
TEST_FILE = re.compile(r"tests/[a-z_/]+\.py")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(page: str) -> set[str]:
    """The names that a heading can be linked by: lower case, no punctuation, dashes for spaces."""
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(page)}


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    """The table is written by: python -c 'from mhnos_runtime import config; print(config.docs_table())'"""
    begin, end = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"
    table = OPERATIONS[OPERATIONS.index(begin) + len(begin) : OPERATIONS.index(end)].strip()
    assert table == config.docs_table().strip()


# The methods that write a log line, and which of their arguments is its fixed text.
LOG_METHODS = {"debug": 0, "info": 0, "warning": 0, "error": 0, "exception": 0, "write": 1}


def messages_logged() -> Iterator[str]:
    for path in python_files("src"):
        for call in ast.walk(parsed(path)):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            owner, number = ast.unparse(call.func.value), LOG_METHODS.get(call.func.attr)
            if owner.endswith("log") or owner.startswith("logs.get("):
                wanted = call.args[number : number + 1] if number is not None else []
                yield from (str(arg.value) for arg in wanted if isinstance(arg, ast.Constant))


def test_the_log_messages_explained_are_those_there_are() -> None:
    table = OPERATIONS.partition("| message | level |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == set(messages_logged())


def test_every_exit_code_of_the_command_line_is_explained() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert {code for code in codes if f"| {int(code)} |" not in OPERATIONS} == {exits.SIGNAL_BASE}
    assert "| 128 + N |" in OPERATIONS


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(text(page)):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(text(file))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = set(TEST_FILE.findall(text(page)))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.fixture
def node() -> str:
    path, why_not = find_node()
    return path or pytest.skip(why_not)


async def test_what_the_readme_shows_for_a_browser_works(node: str, tmp_path: Path) -> None:
    """Node.js has the same WebSocket as a browser."""
    shown_script = re.search(r"```js\n(.*?)```", README, re.DOTALL)
    assert shown_script is not None
    async with TestServer(tmp_path) as server:
        script = shown_script[1].replace("TOKEN", server.token)
        script = script.replace("ws://127.0.0.1:18790", server.url.replace("http", "ws", 1))
        process = await asyncio.create_subprocess_exec(
            node, "-e", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert "hello from a process" in output
