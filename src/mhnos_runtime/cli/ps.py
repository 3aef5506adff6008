"""`ps`: which processes there are. Knows how a row looks, not how it is obtained."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import say
from mhnos_runtime.cli.target import open_direct, target_options

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import ProcessInfo

_COMMAND_CHARS = 48


@click.command(short_help="List processes.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also ended processes that are still kept.")
@click.option("-q", "--quiet", is_flag=True, help="Pids only.")
@click.option("--json", "json_", is_flag=True, help="As JSON, with every field.")
@target_options
def ps(url: str | None, token_file: str | None, everything: bool, quiet: bool, json_: bool) -> None:
    """List the processes that run.

    \b
    Examples:
      mhnos-runtime ps
      mhnos-runtime ps -a --json
      mhnos-runtime kill $(mhnos-runtime ps -q)
    """
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        rows = runtime.ask(m.List(all=everything), m.ProcessList).processes
    if json_:
        import msgspec

        say.as_json(msgspec.to_builtins(rows))
    elif quiet:
        print("".join(f"{row.pid}\n" for row in rows), end="")
    else:
        say.table(
            ("PID", "KIND", "COMMAND", "STARTED", "STATUS", "NAME"), [cells(row, time.time()) for row in rows]
        )


def cells(row: ProcessInfo, now_s: float) -> tuple[str, ...]:
    """One row of the table."""
    command = " ".join([row.command, *row.args]).strip()
    if len(command) > _COMMAND_CHARS:
        command = command[: _COMMAND_CHARS - 1] + "…"
    started = f"{say.duration(now_s - row.start_time / 1000)} ago"
    name = row.name if isinstance(row.name, str) else ""
    return str(row.pid), row.type, command or "-", started, _status(row), name or "-"


def _status(row: ProcessInfo) -> str:
    from mhnos_runtime.wire.messages import ExitInfo

    ended = row.exit
    if not isinstance(ended, ExitInfo):
        return row.status
    what = ended.signal or ("" if ended.code is None else f"code {ended.code}")
    why = "" if ended.reason in ("exit", "signal") else ended.reason
    return f"exited ({', '.join(filter(None, (what, why)))})"
