"""`kill`: signal processes, or end them."""

from __future__ import annotations

import click

from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.target import Handle, Signal, open_direct, signal_name, target_options

#: Signals that mean "end": stronger ones follow until nothing is left.
ENDING = ("SIGTERM", "SIGKILL", "SIGHUP", "SIGQUIT")


class Kill(click.Command):
    """Takes a signal as kill(1) does too: -9, -KILL."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_spelled_out(arg) for arg in args])


def _spelled_out(arg: str) -> str:
    name = signal_name(arg[1:]) if arg.startswith("-") else None
    return f"--signal={name}" if name else arg


@click.command(cls=Kill, short_help="Signal or end processes.")
@click.argument("processes", type=Handle(ended=False), nargs=-1, required=True, metavar="PROCESS...")
@click.option(
    "-s", "--signal", "signal_", type=Signal(), default="TERM", show_default=True, help="Which signal."
)
@target_options
def kill(url: str | None, token_file: str | None, processes: tuple[int | str, ...], signal_: str) -> int:
    """Send a signal to each process, named by pid or name, and everything that it started.

    TERM, HUP, QUIT and KILL end a process: one that does not obey is killed after a grace. Prints each
    process that was signalled; the exit code is 1 when one is not there.

    \b
    Examples:
      mhnos-runtime kill 1000
      mhnos-runtime kill -9 web
      mhnos-runtime kill -s INT 1000 1001
    """
    from mhnos_runtime.cli.processes import Ends, found_running, signal

    escalate, begun = signal_ in ENDING, list[tuple[int | str, int]]()
    with open_direct(url, token_file) as runtime:
        ends = Ends(runtime) if escalate else None

        def signalled(handle: int | str) -> None:
            pid = found_running(runtime, handle).pid
            signal(runtime, pid, signal_, escalate=escalate)
            begun.append((handle, pid))

        code = each(processes, signalled)
        for handle, pid in begun:
            if ends is not None:
                ends.wait(pid)
            print(handle, flush=True)
    return code
