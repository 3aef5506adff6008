"""`inspect`: all that is known of processes, as JSON."""

from __future__ import annotations

import click

from mhnos_runtime.cli import say
from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.target import Handle, open_direct, target_options


@click.command(short_help="Show all that is known of processes, as JSON.")
@click.argument("processes", type=Handle(), nargs=-1, required=True, metavar="PROCESS...")
@target_options
def inspect(url: str | None, token_file: str | None, processes: tuple[int | str, ...]) -> int:
    """Print a JSON list with everything that the runtime knows of each process: the whole command line, how
    it is confined, its limits, its ports, how it ended.

    \b
    Examples:
      mhnos-runtime inspect web
      mhnos-runtime inspect 1000 1001
    """
    import msgspec

    from mhnos_runtime.cli.processes import found

    told: list[object] = []
    with open_direct(url, token_file) as runtime:
        code = each(processes, lambda handle: told.append(msgspec.to_builtins(found(runtime, handle))))
    say.as_json(told)
    return code
