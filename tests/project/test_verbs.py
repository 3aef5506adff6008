"""Each command line that the code, its help and hints, and the docs name is one that there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mhnos_runtime.cli.main import VERBS, cli
from mhnos_runtime.cli.target import signal_name
from tests.project.checkout import ROOT, files, shown

PLACES = [
    path
    for path in files()
    if path.suffix in (".md", ".py", ".yaml", ".service", ".toml")
    and path.relative_to(ROOT).parts[0] in ("src", "docs", "packaging", "README.md", "CONTRIBUTING.md")
]
#: As somebody would type it: behind a backtick, a prompt, sudo, a path, or the indentation of an example.
MENTION = re.compile(
    r"(?:`|\$ |sudo |exec runtime |^[ ]+|[\w~}]/)mhnos-runtime((?: +[^\s`'\"|>#;&()\\{}]+)*)", re.MULTILINE
)


def mentions(path: Path) -> Iterator[list[str]]:
    for match in MENTION.finditer(path.read_text(encoding="utf-8")):
        words = shlex.split(match[1].rstrip(".,:"))
        if words[:1] == ["mhnos-runtime"]:  # a container of this name
            del words[0]
        if words and words[0] not in ("...", "…", "VERB"):
            yield words


def wrong(words: list[str], command: click.Command) -> str:
    """What is wrong with a command line; "" for nothing. Only verbs and options are looked at."""
    options = {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options |= dict.fromkeys(("-h", "--help"), None)  # type: ignore[arg-type]
    while words:
        word, *words = words
        if not word.startswith("-") or word == "-":
            if isinstance(command, click.Group):
                found = command.get_command(click.Context(command), word)
                return f"no verb {word}" if found is None else wrong(words, found)
            if command.context_settings.get("allow_interspersed_args", True):
                continue
            return ""
        if word == "--" or (command.name == "kill" and signal_name(word[1:])):
            continue
        names = [word.partition("=")[0]] if word.startswith("--") else [f"-{each}" for each in word[1:]]
        for name in names:
            if name not in options:
                return f"no option {name}"
        last = options[names[-1]]
        if isinstance(last, click.Option) and not last.is_flag and "=" not in word:
            words = words[1:]
    return ""


@pytest.mark.parametrize("path", PLACES, ids=shown)
def test_what_is_named_is_there(path: Path) -> None:
    found = {" ".join(words): wrong(words, cli) for words in mentions(path)}
    assert {line: why for line, why in found.items() if why} == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ps -aq --filter name=x", ""),
        ("kill -9 1000", ""),
        ("kill -Z 1000", "no option -Z"),
        ("run -it --name web shell --nosuch", ""),
        ("run --nosuch shell", "no option --nosuch"),
        ("engines instal node", "no verb instal"),
        ("--url ws://x ps", ""),
        ("list", "no verb list"),
    ],
)
def test_what_is_wrong_is_found(line: str, why: str) -> None:
    assert wrong(line.split(), cli) == why


def test_the_mentions_are_found() -> None:
    """Else the test above tests nothing."""
    named = {words[0] for path in PLACES for words in mentions(path)}
    assert set(VERBS) - named == set()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_help_that_agrees_with_the_overview_and_shows_examples(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert "Examples:" in (command.help or "")
    if verb != "serve":
        assert command.short_help == VERBS[verb].summary
