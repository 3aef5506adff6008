"""Turns the blocks of a Markdown page into one shell script. Knows text only; runs nothing.

In a `console` block a line `$ command` is run, one ending in a backslash goes on; other lines show output
and are not compared. A block of another language whose first line is a comment with a file's name, such as
`# first.py`, is that file, and is saved where it stands. Variables and files live from block to block of a
page. An interactive command (`-it`, `-ti`) gets a terminal, into which `exit` is typed; an `attach` gets
one and the detach keys.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

BLOCK = re.compile(r"^```([a-z]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"(?:#|//) ([a-z][a-z0-9-]*\.[a-z]+)\n")
INTERACTIVE = re.compile(r"\s-(it|ti)\s")
ATTACH = re.compile(r"^mhnos-runtime attach (?!.*--no-stdin)")
# What a reader does once before all else, and a test must not: it changes the machine or leaves the project.
SET_UP = re.compile(r"^(git clone|cd|source|sudo|apt-get)\s")

# Typed again until the command has ended: keys that come before it reads them are the terminal's own.
TYPE_DETACH_KEYS = "(trap '' PIPE; while printf '\\x10\\x11' 2>/dev/null; do sleep 0.1; done; true)"


class Step(NamedTuple):
    """line: where it stands in the page, from 1. text: a command, or with `file` what is saved in it."""

    line: int
    text: str
    file: str = ""


def steps(page: str) -> list[Step]:
    """What a reader of the page does, in order."""
    found: list[Step] = []
    for block in BLOCK.finditer(page):
        first = page.count("\n", 0, block.start(2)) + 1
        name = FILE_NAME.match(block[2])
        if block[1] == "console":
            found += commands(block[2], first)
        elif name is not None:
            found.append(Step(first, block[2], name[1]))
    return found


def commands(block: str, first: int) -> list[Step]:
    """The commands of one block, whose first line has the number `first`."""
    found: list[Step] = []
    goes_on = False
    for line, text in enumerate(block.splitlines(), first):
        if goes_on:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{text}")
        elif text.startswith("$ "):
            found.append(Step(line, text[2:]))
        goes_on = text.endswith("\\") and (goes_on or text.startswith("$ "))
    return found


def run(step: Step) -> str:
    """The step as it is run; of make only a rehearsal, since its tests are what is running."""
    if step.file:
        return f"printf %s {shlex.quote(step.text)} > {step.file}"
    command = step.text
    if SET_UP.match(command):
        return ":"
    if command.startswith("make"):
        return f'make -C "$checkout" --dry-run{command.removeprefix("make")} >/dev/null'
    if INTERACTIVE.search(command):
        return f"printf 'exit\\n' | script -qefc {shlex.quote(command)} /dev/null"
    if ATTACH.match(command):
        return f"{TYPE_DETACH_KEYS} | script -qefc {shlex.quote(command)} /dev/null"
    return command


def script(page: str, name: str) -> str:
    """A bash script that stops at the first command that fails, with its place as the last line of stderr."""
    lines = ["set -Eeuo pipefail", f"page={shlex.quote(name)}", """trap 'echo "$page:$at: failed" >&2' ERR"""]
    for step in steps(page):
        lines += [f"at={step.line}", run(step)]
    return "\n".join(lines) + "\n"
