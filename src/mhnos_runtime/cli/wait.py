"""`wait`: until processes have ended, as docker does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.target import Handle, target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct


@click.command(short_help="Wait until processes have ended; print their exit codes.")
@click.argument("processes", type=Handle(), nargs=-1, required=True, metavar="PROCESS...")
@target_options
def wait(url: str | None, token_file: str | None, processes: tuple[int | str, ...]) -> int:
    """Wait until each process has ended, and print its exit code, one line each: what `run` would have ended
    with. Goes on after a restart of the server.

    \b
    Examples:
      mhnos-runtime wait build
      test "$(mhnos-runtime wait 1000)" = 0
    """
    from mhnos_runtime.cli.lasting import lasting
    from mhnos_runtime.cli.processes import Ends
    from mhnos_runtime.client.discovery import discover

    left, codes = list(processes), [exits.OK]

    def waited(runtime: Direct) -> int:
        ends = Ends(runtime)
        while left:
            codes.append(each(left[:1], lambda handle: str(exits.for_exit(ends.of(handle)))))
            del left[0]
        return max(codes)

    return lasting(discover(url, token_file), waited, say.status)
