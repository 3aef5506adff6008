"""`attach`: show and control a process that runs already."""

from __future__ import annotations

import os
from typing import Literal

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.run import detach_keys_for, detach_keys_option
from mhnos_runtime.cli.target import Handle, ParamType, open_runtime, run_async, target_options
from mhnos_runtime.errors import MhnosError


class Start(ParamType):
    """Where in the output to start: "start", "end" or an offset in bytes."""

    name = "start"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value in ("start", "end"):
            return str(value)
        if not str(value).isdigit():
            self.fail(f"{value!r} is neither start nor end nor an offset in bytes", param, ctx)
        return int(str(value))


@click.command(short_help="Take a process's terminal over, or watch it.")
@click.argument("process", type=Handle())
@click.option("--no-stdin", is_flag=True, help="Only watch.")
@click.option(
    "--from", "from_", type=Start(), default="start", show_default=True, help="start, end or an offset."
)
@click.option(
    "--end", is_flag=True, help="Nothing old: start at the end, and have the program draw its screen anew."
)
@detach_keys_option
@target_options
def attach(
    url: str | None,
    token_file: str | None,
    process: int | str,
    no_stdin: bool,
    from_: int | str,
    end: bool,
    detach_keys: bytes | None,
) -> int:
    """Show what a process has written and writes, and send it what is typed; any number may be attached.

    Leaving (Ctrl-P Ctrl-Q in a terminal) leaves the process alone, and so does the end of this command's
    input. With a token that may only view, this only watches. The exit code is the process's, as with `run`;
    0 after leaving; 125 when the runtime failed.

    \b
    Examples:
      mhnos-runtime attach web
      mhnos-runtime attach --end 1000
      mhnos-runtime attach --no-stdin --from end 1000
    """
    try:
        start = "end" if end else from_
        return run_async(_attach(url, token_file, process, no_stdin, start, end, detach_keys))
    except MhnosError as error:
        say.error(error.message, error.hint)
        return exits.RUNTIME_FAILED


async def _attach(
    url: str | None,
    token_file: str | None,
    handle: int | str,
    no_stdin: bool,
    from_: int | str,
    repaint: bool,
    detach_keys: bytes | None,
) -> int:
    from mhnos_runtime.cli.session import Manner, Session, StatusLines
    from mhnos_runtime.wire.messages import PtySize

    status = StatusLines()
    async with open_runtime(
        url, token_file, on_state=status.connection, on_uncertain=status.uncertain
    ) as runtime:
        may_control = runtime.has_scope("control")
        start: int | Literal["start", "end"] = from_  # type: ignore[assignment]  # as Start makes it
        process = await runtime.attach(handle, from_=start, repaint=repaint and may_control)
        info = process.info
        has_terminal = info is not None and isinstance(info.pty, PtySize)
        # As the answer said: the message that tells of the end may still be on its way.
        runs = process.exit is None and not (info is not None and info.status == "exited")
        controls = may_control and not no_stdin
        raw = has_terminal and controls and os.isatty(0) and runs
        manner = Manner(
            raw=raw,
            feed=controls and runs,
            detach_keys=detach_keys_for(detach_keys, raw),
            forward_interrupt=controls,
        )
        session = Session(runtime, process, manner, status)
        if not may_control:
            status.say("view only: with this token nothing can be typed, resized or signalled")
        return await session.run()
