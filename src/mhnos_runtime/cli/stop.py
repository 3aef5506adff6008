"""`stop`: have processes end, as docker does."""

from __future__ import annotations

import click

from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.target import Handle, open_direct, target_options


@click.command(short_help="End processes: SIGTERM, and SIGKILL after a grace.")
@click.argument("processes", type=Handle(ended=False), nargs=-1, required=True, metavar="PROCESS...")
@click.option(
    "-t",
    "--time",
    "grace_s",
    metavar="SECONDS",
    type=click.FloatRange(0, 3600),
    help="How long a process may take; without it what the runtime's kill_grace_seconds says.",
)
@target_options
def stop(
    url: str | None, token_file: str | None, processes: tuple[int | str, ...], grace_s: float | None
) -> int:
    """End each process with everything that it started: SIGTERM, and SIGKILL after a grace. Waits for the
    end. One that has ended already is no error.

    \b
    Examples:
      mhnos-runtime stop web
      mhnos-runtime stop -t 30 1000 1001
    """
    from mhnos_runtime.cli.processes import Ends, end_within, exit_of, found, signal
    from mhnos_runtime.wire import messages as m

    begun: list[tuple[int | str, int | None]] = []
    with open_direct(url, token_file) as runtime:
        ends = Ends(runtime)

        def asked(handle: int | str) -> None:
            process = found(runtime, handle)
            if exit_of(process) is not None:
                begun.append((handle, None))
                return
            begun.append((handle, process.pid))
            # The runtime has a grace of its own; with another one, it is this command that kills.
            signal(runtime, process.pid, "SIGTERM", escalate=grace_s is None)
            talks = process.type == "shell" and not process.command and isinstance(process.pty, m.PtySize)
            if grace_s is not None and talks:
                # A shell that talks to a person ignores SIGTERM; the end of its terminal ends it.
                signal(runtime, process.pid, "SIGHUP", escalate=False)

        code = each(processes, asked)
        if grace_s is not None:
            end_within(runtime, ends, (pid for _, pid in begun if pid is not None), grace_s)
        for handle, pid in begun:
            if pid is not None:
                ends.wait(pid)
            print(handle, flush=True)
    return code
