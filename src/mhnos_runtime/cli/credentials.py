"""`credentials`: the token that the runtime made for a process. Knows nothing of what it is for."""

from __future__ import annotations

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import open_direct, target_options


@click.command(short_help="Show the token of a process, such as OpenClaw's.")
@click.argument("pid", type=int)
@target_options
def credentials(url: str | None, token_file: str | None, pid: int) -> int:
    """Print the token that the runtime made for a process; clients of that process have to show it.

    \b
    Examples:
      mhnos-runtime credentials 1000
    """
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        token = runtime.ask(m.Credentials(pid), m.CredentialsAnswer).token
    if token is None:
        say.error(f"process {pid} has no token")
        return exits.FAILED
    print(token)
    return exits.OK
