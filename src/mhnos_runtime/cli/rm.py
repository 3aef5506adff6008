"""`rm`: forget ended processes, with their output."""

from __future__ import annotations

import click

from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.target import Handle, open_direct, target_options


@click.command(short_help="Remove ended processes with their output.")
@click.argument("processes", type=Handle(), nargs=-1, required=True, metavar="PROCESS...")
@click.option("-f", "--force", is_flag=True, help="Kill first what still runs; not to find one is no error.")
@target_options
def rm(url: str | None, token_file: str | None, processes: tuple[int | str, ...], force: bool) -> int:
    """Remove the record and the output of each process. Of its own accord the runtime removes them some time
    after the end (retain_seconds, 10 minutes), or when many others have ended since (retain_count, 256).

    \b
    Examples:
      mhnos-runtime rm 1000 build
      mhnos-runtime rm -f web
    """
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:

        def removed(handle: int | str) -> str | None:
            try:
                if force:
                    runtime.ask(m.Kill(pid=handle, signal="SIGKILL"), m.Killed)
                runtime.ask(m.Remove(pid=handle), m.Removed)
            except RequestFailed as error:
                if force and error.code == "unknown-process":
                    return None
                if error.code == "still-running":
                    raise RequestFailed(
                        f"process {handle} runs", hint=f"`mhnos-runtime rm -f {handle}` kills it first"
                    ) from None
                raise
            return str(handle)

        return each(processes, removed)
