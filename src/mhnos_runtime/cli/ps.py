"""`ps`: which processes there are. Knows how a row looks, not how it is obtained."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import click

from mhnos_runtime.cli import endings, say
from mhnos_runtime.cli.port import address_of
from mhnos_runtime.cli.target import open_direct, target_options

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import ProcessInfo

HEAD = ("PID", "NAME", "KIND", "COMMAND", "STARTED", "STATUS", "PORTS")
COMMAND = HEAD.index("COMMAND")  # the column that shrinks where the screen is narrow


_STATUSES = ("running", "ending", "exited")  # as the protocol has them


class Filter(NamedTuple):
    """of_all: it chooses among the ended processes too, as a status does in docker, -a or not."""

    lets_by: Callable[[ProcessInfo], bool]
    of_all: bool = False


def _filters(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[Filter]:
    return [_filter(ctx, param, *value.partition("=")[::2]) for value in values]


def _filter(ctx: click.Context, param: click.Parameter, key: str, wanted: str) -> Filter:
    if key == "name":
        return Filter(lambda row: isinstance(row.name, str) and wanted in row.name)
    if key == "kind":
        return Filter(lambda row: row.type == wanted)
    if key == "status":
        if wanted not in _STATUSES:
            raise click.BadParameter(f"{wanted!r} is none of {', '.join(_STATUSES)}", ctx, param)
        return Filter(lambda row: row.status == wanted, of_all=True)
    raise click.BadParameter(f"{key!r} is none of name, kind and status", ctx, param)


@click.command(short_help="List processes.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also ended processes that are still kept.")
@click.option("-q", "--quiet", is_flag=True, help="Pids only.")
@click.option(
    "-f",
    "--filter",
    "filters",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_filters,
    help="Only those of a name (or a part of it), kind or status: name=web, kind=shell, status=exited.",
)
@click.option("--json", "json_", is_flag=True, help="As JSON, with every field.")
@target_options
def ps(
    url: str | None,
    token_file: str | None,
    everything: bool,
    quiet: bool,
    filters: list[Filter],
    json_: bool,
) -> None:
    """List the processes that run; with -a also those that have ended. An ended process is kept with its
    output for 10 minutes, and among the last 256 (retain_seconds and retain_count in the settings).

    \b
    Examples:
      mhnos-runtime ps
      mhnos-runtime ps -a --filter kind=python
      mhnos-runtime kill $(mhnos-runtime ps -q)
    """
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        everything = everything or any(each.of_all for each in filters)
        listed = runtime.ask(m.List(all=everything), m.ProcessList).processes
    rows = [row for row in listed if all(each.lets_by(row) for each in filters)]
    if json_:
        import msgspec

        say.as_json(msgspec.to_builtins(rows))
    elif quiet:
        print("".join(f"{row.pid}\n" for row in rows), end="")
    else:
        say.table(HEAD, [cells(row, time.time()) for row in rows], shrink=COMMAND)


def cells(row: ProcessInfo, now_s: float) -> tuple[str, ...]:
    """One row of the table."""
    started = f"{say.duration(now_s - row.start_time / 1000)} ago"
    ports = [f"{port.name} {address_of(port)}" for port in row.ports] if isinstance(row.ports, list) else []
    command = " ".join([row.command, *row.args]).strip()
    name = row.name if isinstance(row.name, str) else ""
    return str(row.pid), name or "-", row.type, command or "-", started, _status(row), ", ".join(ports) or "-"


def _status(row: ProcessInfo) -> str:
    from mhnos_runtime.wire import messages as m

    return endings.status(row.exit) if isinstance(row.exit, m.ExitInfo) else row.status
