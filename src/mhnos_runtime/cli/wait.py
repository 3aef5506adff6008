"""`wait`: until processes have ended, as docker does."""

from __future__ import annotations

import click

from mhnos_runtime.cli import exits
from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.target import Handle, open_direct, target_options


@click.command(short_help="Wait until processes have ended; print their exit codes.")
@click.argument("processes", type=Handle(), nargs=-1, required=True, metavar="PROCESS...")
@target_options
def wait(url: str | None, token_file: str | None, processes: tuple[int | str, ...]) -> int:
    """Wait until each process has ended, and print its exit code, one line each: what `run` would have ended
    with.

    \b
    Examples:
      mhnos-runtime wait build
      test "$(mhnos-runtime wait 1000)" = 0
    """
    from mhnos_runtime.cli.processes import Ends

    with open_direct(url, token_file) as runtime:
        ends = Ends(runtime)
        return each(processes, lambda handle: str(exits.for_exit(ends.of(handle))))
