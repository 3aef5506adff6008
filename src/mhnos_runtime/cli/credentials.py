"""`credentials`: the token that the runtime made for a process. Knows nothing of what it is for."""

from __future__ import annotations

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import open_runtime, run_async, target_options


@click.command(short_help="Show the token of a process, such as OpenClaw's.")
@click.argument("pid", type=int)
@target_options
def credentials(url: str | None, token_file: str | None, pid: int) -> int:
    """Print the token that the runtime made for a process; clients of that process have to show it.

    \b
    Examples:
      mhnos-runtime credentials 1000
    """
    token = run_async(_ask(url, token_file, pid))
    if token is None:
        say.error(f"process {pid} has no token")
        return exits.FAILED
    print(token)
    return exits.OK


async def _ask(url: str | None, token_file: str | None, pid: int) -> str | None:
    async with open_runtime(url, token_file, reconnect=False) as runtime:
        return await runtime.handle(pid).token()
