"""`grep`: find files of the workspace by what is in them, and by name. Knows how a match looks, not how it
is found."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from mhnos_runtime import bounds
from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.names import raw, shown
from mhnos_runtime.cli.places import inside
from mhnos_runtime.cli.search import without_controls
from mhnos_runtime.cli.target import WorkspacePath, open_direct, target_options
from mhnos_runtime.errors import MhnosError

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import FileMatch, FileSearchResult, SearchFiles

_MAGENTA, _GREEN, _CYAN = "35", "32", "36"  # as grep's file names, line numbers and separators
_LINES = click.IntRange(0, bounds.LINES_AROUND)


class Manner(NamedTuple):
    """What is printed of what was found; as grep(1) has these. around: groups of lines are kept apart."""

    names: bool
    counts: bool
    around: bool
    json: bool


@click.command(short_help="Find files of the workspace by content and name.")
@click.argument("words", type=WorkspacePath(), nargs=-1, metavar="PATTERN [PATH...]")
@click.option("-g", "--name", metavar="GLOB", help="Only files of such a name: *.py, src/**/test_*.")
@click.option("--files", "names", is_flag=True, help="No PATTERN: list all files, or those of --name.")
@click.option("-l", "--files-with-matches", "only_files", is_flag=True, help="Names of files only.")
@click.option("-c", "--count", is_flag=True, help="How many lines of each file that has any.")
@click.option("-o", "--only-matching", is_flag=True, help="Each part that matches, not its line.")
@click.option("-A", "--after-context", "after", type=_LINES, help="So many lines behind each, too; up to 20.")
@click.option("-B", "--before-context", "before", type=_LINES, help="So many lines in front of each.")
@click.option("-C", "--context", "around", type=_LINES, default=0, help="Both.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit code tells.")
@click.option("-i", "--ignore-case", is_flag=True, help="Upper and lower case are the same.")
@click.option("-F", "--fixed-strings", "fixed", is_flag=True, help="PATTERN is a text, not an expression.")
@click.option("-w", "--word-regexp", "word", is_flag=True, help="Whole words only.")
@click.option("--ignored", is_flag=True, help="Also in files that .gitignore names.")
@click.option(
    "-r", "-R", "-n", "-E", "-H", "-I", "usual", is_flag=True, hidden=True, help="As it does anyway."
)
@click.option(
    "-m",
    "--max",
    "max_",
    type=click.IntRange(1, bounds.MATCHES),
    help="So many lines at most.  [default: 1000, with -c 10000]",
)
@click.option("--json", "json_", is_flag=True, help="As JSON, with columns.")
@target_options
def grep(
    url: str | None,
    token_file: str | None,
    words: tuple[str, ...],
    name: str | None,
    names: bool,
    only_files: bool,
    count: bool,
    only_matching: bool,
    after: int | None,
    before: int | None,
    around: int,
    quiet: bool,
    ignore_case: bool,
    fixed: bool,
    word: bool,
    ignored: bool,
    usual: bool,  # noqa: ARG001 - so that it is no error
    max_: int | None,
    json_: bool,
) -> int:
    """Show the lines in which PATTERN is found, of each PATH, a file or what is below a directory, or of the
    whole workspace. It is `grep -rn`, on the server; files that .gitignore names are left out, unless PATH
    is one. (`mhnos-runtime search` looks in the output of processes.)

    PATTERN is an expression in the syntax of RE2: as usual, without backreferences and look-around. The exit
    code is grep's: 0 if something was found, 1 if nothing, 2 if the search failed.

    \b
    Examples:
      mhnos-runtime grep 'TODO|FIXME'
      mhnos-runtime grep -i timeout src docs
      mhnos-runtime grep -w -C 2 main src
      mhnos-runtime grep -F 'a[0]' --name '*.py'
      mhnos-runtime grep --files --name '*.md'
    """
    from mhnos_runtime.wire import messages as m

    if not names and not words:
        raise click.UsageError("Missing argument 'PATTERN'. Names alone are found by --files --name GLOB")
    pattern = None if names else words[0]
    whole = not (names or only_files or count)  # lines are printed
    lines_before, lines_after = (
        (around if each is None else each) if whole else 0 for each in (before, after)
    )
    messages = [
        m.SearchFiles(
            path=inside(path),
            name=name or (None if pattern else "*"),
            pattern=pattern,
            fixed=fixed,
            word=word,
            ignore_case=ignore_case,
            only_matching=only_matching and whole,
            lines_before=lines_before,
            lines_after=lines_after,
            ignored=ignored,
            max=max_ or (bounds.MATCHES if count else bounds.MATCHES_USUAL),
        )
        for path in words[0 if names else 1 :] or ["/"]
    ]
    found, failed = _asked(messages, url, token_file)
    if not quiet:
        _show(found, Manner(only_files or names, count, bool(lines_before or lines_after), json_))
    if failed:
        return exits.TROUBLE
    return exits.OK if _matches(found) else exits.FAILED


def _asked(
    messages: list[SearchFiles], url: str | None, token_file: str | None
) -> tuple[list[FileSearchResult], bool]:
    """What was found, and whether something could not be searched, which is said."""
    from mhnos_runtime.cli.looking import hint_of
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    found: list[FileSearchResult] = []
    # By what they say: what is wrong with the pattern is said once.
    faults: dict[str, tuple[str, MhnosError]] = {}
    try:
        with open_direct(url, token_file) as runtime:
            for message in messages:
                try:
                    found.append(runtime.ask(message, m.FileSearchResult))
                except RequestFailed as error:
                    faults[error.message] = message.path, error
    except MhnosError as error:
        faults[error.message] = "", error
    for path, fault in faults.values():
        say.error(fault.message, hint_of(fault, path))
    return found, bool(faults)


def _show(found: list[FileSearchResult], manner: Manner) -> None:
    matches = _matches(found)
    truncated = any(each.truncated for each in found)
    if manner.json:
        import msgspec

        say.as_json(
            {
                "matches": msgspec.to_builtins(matches),
                "truncated": truncated,
                "searched": sum(each.searched for each in found),
                "searchedBytes": sum(each.searched_bytes for each in found),
                "unread": sum(each.unread for each in found),
            }
        )
        return
    for line in _lines(matches, manner):
        print(line)
    if truncated:
        hint = "name a folder, or a narrower pattern; --max allows up to 10000 lines"
        print(f"[there may be more: {hint}]", file=sys.stderr)


def _lines(matches: list[FileMatch], manner: Manner) -> Iterator[str]:
    if manner.names:
        yield from dict.fromkeys(map(_name, matches))
    elif manner.counts:
        for name, count in Counter(map(_name, matches)).items():
            yield f"{name}{_separator(':')}{count}"
    else:
        latest: FileMatch | None = None
        for match in matches:
            if manner.around and latest is not None and not _follows(match, latest):
                yield _separator("--")
            latest = match
            yield _line(match)


def _follows(match: FileMatch, latest: FileMatch) -> bool:
    return match.path == latest.path and match.line == (latest.line or 0) + 1


def _separator(text: str) -> str:
    return say.paint(text, _CYAN, sys.stdout)


def _matches(found: list[FileSearchResult]) -> list[FileMatch]:
    """Files alone: a directory may have a name that was looked for, too."""
    return [match for each in found for match in each.matches if match.kind != "directory"]


def _name(match: FileMatch) -> str:
    path = match.path.lstrip("/") or "/"
    return say.paint(shown(path) if sys.stdout.isatty() else raw(path), _MAGENTA, sys.stdout)


def _line(match: FileMatch) -> str:
    if match.line is None:
        return _name(match)
    text = match.text or ""
    line = without_controls(text) if sys.stdout.isatty() else text
    between = _separator("-" if match.column is None else ":")
    return between.join((_name(match), say.paint(str(match.line), _GREEN, sys.stdout), line))
