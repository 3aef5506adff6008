"""Turns the `console` blocks of a Markdown page into one shell script. Knows text only; runs nothing.

A line `$ command` is run, one ending in a backslash goes on; other lines show output and are not compared.
Variables live from block to block of one page. An interactive command (`-it`, `-ti`) gets a terminal, into
which `exit` is typed.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INTERACTIVE = re.compile(r"\s-(it|ti)\s")
# What a reader does once before all else, and a test must not: it changes the machine or leaves the project.
SET_UP = re.compile(r"^(git clone|cd|sudo|apt-get)\s")


class Command(NamedTuple):
    """line: where it stands in the page, from 1."""

    line: int
    text: str


def commands(page: str) -> list[Command]:
    found: list[Command] = []
    for block in BLOCK.finditer(page):
        first = page.count("\n", 0, block.start(1)) + 1
        goes_on = False
        for line, text in enumerate(block[1].splitlines(), first):
            if goes_on:
                found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{text}")
            elif text.startswith("$ "):
                found.append(Command(line, text[2:]))
            goes_on = text.endswith("\\") and (goes_on or text.startswith("$ "))
    return found


def step(command: str) -> str:
    """The command as it is run; of make only a rehearsal, since its tests are what is running."""
    if SET_UP.match(command):
        return ":"
    if command.startswith("make"):
        return f"make --dry-run{command.removeprefix('make')} >/dev/null"
    if INTERACTIVE.search(command):
        return f"printf 'exit\\n' | script -qefc {shlex.quote(command)} /dev/null"
    return command


def script(page: str, name: str) -> str:
    """A bash script that stops at the first command that fails, with its place as the last line of stderr."""
    lines = ["set -Eeuo pipefail", f"page={shlex.quote(name)}", """trap 'echo "$page:$at: failed" >&2' ERR"""]
    for command in commands(page):
        lines += [f"at={command.line}", step(command.text)]
    return "\n".join(lines) + "\n"
