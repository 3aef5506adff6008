"""`credentials`: the token that the runtime made for a process. Knows nothing of what it is for."""

from __future__ import annotations

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import Handle, open_direct, target_options


@click.command(short_help="Show the token of a process, such as OpenClaw's.")
@click.argument("process", type=Handle())
@target_options
def credentials(url: str | None, token_file: str | None, process: int | str) -> int:
    """Print the token that the runtime made for a process; clients of that process have to show it.

    \b
    Examples:
      mhnos-runtime credentials 1000
    """
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        token = runtime.ask(m.Credentials(pid=process), m.CredentialsAnswer).token
    if token is None:
        say.error(f"process {process} has no token")
        return exits.FAILED
    print(token)
    return exits.OK
