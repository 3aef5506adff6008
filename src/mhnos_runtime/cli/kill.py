"""`kill`: signal processes, or end them."""

from __future__ import annotations

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import Pid, Signal, open_direct, target_options


@click.command(short_help="Signal or end processes.")
@click.argument("pids", type=Pid(), nargs=-1, required=True, metavar="PID...")
@click.option(
    "-s", "--signal", "signal_", type=Signal(), default="TERM", show_default=True, help="Which signal."
)
@target_options
def kill(url: str | None, token_file: str | None, pids: tuple[int, ...], signal_: str) -> int:
    """Send a signal to each process and everything that it started.

    TERM, HUP, QUIT and KILL end a process: one that does not obey is killed after a grace. Prints each pid
    that
    was signalled; the exit code is 1 when one is not there.

    \b
    Examples:
      mhnos-runtime kill 1000
      mhnos-runtime kill -s INT 1000 1001
    """
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    code = exits.OK
    with open_direct(url, token_file) as runtime:
        known = {row.pid for row in runtime.ask(m.List(), m.ProcessList).processes}
        for pid in pids:
            try:
                if pid not in known:
                    raise RequestFailed(
                        f"process {pid} does not run", hint="`mhnos-runtime ps` lists those that do"
                    )
                runtime.ask(m.Kill(pid, signal_), m.Killed)
                print(pid, flush=True)
            except RequestFailed as error:
                say.error(error.message, error.hint)
                code = exits.FAILED
    return code
