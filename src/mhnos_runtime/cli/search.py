"""`search`: find lines in what processes have written. Knows how a match looks, not how it is found."""

from __future__ import annotations

import datetime
import re
import sys
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import Handle, open_direct, target_options
from mhnos_runtime.errors import MhnosError

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import SearchMatch, SearchResult

# Sequences and controls, whole or cut: what is left moves no cursor.
_CONTROLS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*.?)"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
_MAGENTA, _GREEN = "35", "32"  # as grep's file names and line numbers


@click.command(short_help="Find lines in what processes have written.")
@click.argument("pattern")
@click.argument("processes", metavar="[PROCESS]...", type=Handle(), nargs=-1)
@click.option("-i", "--ignore-case", is_flag=True, help="Upper and lower case are the same.")
@click.option("-F", "--fixed-strings", "fixed", is_flag=True, help="PATTERN is a text, not an expression.")
@click.option("-m", "--max", "max_", type=click.IntRange(1, 10_000), default=1000, show_default=True)
@click.option("--json", "json_", is_flag=True, help="As JSON, with streams, offsets and times.")
@target_options
def search(
    url: str | None,
    token_file: str | None,
    pattern: str,
    processes: tuple[int | str, ...],
    ignore_case: bool,
    fixed: bool,
    max_: int,
    json_: bool,
) -> int:
    """Show the lines in which PATTERN is found, of all output that is kept, also of processes that have
    ended; or only of those named. Each line stands behind its process and the time at which it was written.

    PATTERN is an expression in the syntax of RE2: as usual, without backreferences and look-around. The exit
    code is grep's: 0 if a line was found, 1 if none, 2 if the search failed.

    \b
    Examples:
      mhnos-runtime search 'error|warning'
      mhnos-runtime search -i timeout web worker
      mhnos-runtime search -F 'a[0]' --json
    """
    from mhnos_runtime.wire import messages as m

    try:
        with open_direct(url, token_file) as direct:
            message = m.Search(
                pattern=pattern,
                ignore_case=ignore_case,
                fixed=fixed,
                processes=list(processes) or None,
                max=max_,
            )
            found = direct.ask(message, m.SearchResult)
            rows = direct.ask(m.List(all=True), m.ProcessList).processes if found.matches else []
    except MhnosError as error:
        say.error(error.message, error.hint)
        return exits.TROUBLE
    _show(found, {row.pid: row.name for row in rows if isinstance(row.name, str)}, json_)
    return exits.OK if found.matches else exits.FAILED


def _show(found: SearchResult, names: dict[int, str], json_: bool) -> None:
    if json_:
        import msgspec

        matches = msgspec.to_builtins(found.matches)
        say.as_json({"matches": matches, "truncated": found.truncated, "searchedBytes": found.searched_bytes})
        return
    for match in found.matches:
        print(_line(match, names.get(match.pid) or str(match.pid)))
    if found.truncated:
        hint = "name processes, or a narrower pattern; --max allows up to 10000 lines"
        print(f"[there may be more: {hint}]", file=sys.stderr)


def _line(match: SearchMatch, who: str) -> str:
    moment = datetime.datetime.fromtimestamp(match.time / 1000, datetime.UTC)
    time = f"{moment:%Y-%m-%dT%H:%M:%S}.{match.time % 1000:03}Z"
    line = without_controls(match.line) if sys.stdout.isatty() else match.line
    parts = (say.paint(say.printable(who), _MAGENTA, sys.stdout), say.paint(time, _GREEN, sys.stdout))
    return ": ".join((*parts, line))


def without_controls(line: str) -> str:
    """What may be shown on a terminal of a line that anybody may have written."""
    return _CONTROLS.sub("", line)
