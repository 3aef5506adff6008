"""`prune`: forget all processes that have ended, with their output."""

from __future__ import annotations

import sys

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import open_direct, target_options


@click.command(short_help="Remove all ended processes with their output.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@target_options
def prune(url: str | None, token_file: str | None, force: bool) -> int:
    """Remove the records and the output of all processes that have ended. On a terminal it asks first.

    \b
    Examples:
      mhnos-runtime prune
      mhnos-runtime prune -f
    """
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        rows = runtime.ask(m.List(all=True), m.ProcessList).processes
        ended = [row for row in rows if isinstance(row.exit, m.ExitInfo)]
        if not ended:
            print("no process has ended since the last time")
            return exits.OK
        if not (force or _confirmed(len(ended), sum(map(_kept_bytes, ended)))):
            return exits.FAILED
        count = kept_bytes = 0
        for row in ended:
            try:
                runtime.ask(m.Remove(pid=row.pid), m.Removed)
            except RequestFailed as error:
                if error.code != "unknown-process":  # it has expired meanwhile
                    raise
            else:
                count, kept_bytes = count + 1, kept_bytes + _kept_bytes(row)
        print(f"removed {_so_many(count)} with {say.size(kept_bytes)} of output")
    return exits.OK


def _confirmed(count: int, kept_bytes: int) -> bool:
    if not sys.stdin.isatty():
        say.error(
            f"{_so_many(count)} with {say.size(kept_bytes)} of output would be removed",
            "`mhnos-runtime prune -f` removes them without asking",
        )
        return False
    return click.confirm(f"Remove {_so_many(count)} with {say.size(kept_bytes)} of output?")


def _so_many(count: int) -> str:
    return "1 ended process" if count == 1 else f"{count} ended processes"


def _kept_bytes(row: object) -> int:
    first, next_ = getattr(row, "first_offset", None), getattr(row, "next_offset", None)
    return next_ - first if isinstance(first, int) and isinstance(next_, int) else 0
