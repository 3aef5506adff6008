"""`write`: type into a process from a script."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import Handle, open_runtime, run_async, target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.types import InputUncertain


@click.command(short_help="Type into a process.")
@click.argument("process", type=Handle(ended=False))
@click.argument("text")
@click.option("--enter", is_flag=True, help="Press Enter after it.")
@click.option("--close", is_flag=True, help="End the process's input after it.")
@target_options
def write(
    url: str | None, token_file: str | None, process: int | str, text: str, enter: bool, close: bool
) -> int:
    """Type TEXT into a process; `-` sends this command's own input, bytes as they are.

    Waits while the process is slow to read, and over lost connections; exits with 1 when its input is closed.

    \b
    Examples:
      mhnos-runtime write --enter web "make test"
      mhnos-runtime write --close 1000 - < data.csv
    """
    return run_async(_write(url, token_file, process, text, b"\r" if enter else b"", close))


async def _write(
    url: str | None, token_file: str | None, handle: int | str, text: str, enter: bytes, close: bool
) -> int:
    from mhnos_runtime.cli.session import chunks, uncertain_in_words
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    def uncertain(found: InputUncertain) -> None:
        say.error(uncertain_in_words(found))

    async with open_runtime(url, token_file, on_uncertain=uncertain) as runtime:
        found = (await runtime.request(m.Inspect(pid=handle), m.Inspected, resend=True)).process
        if isinstance(found.exit, m.ExitInfo):
            raise RequestFailed(
                f"process {handle} does not run", hint="`mhnos-runtime ps` lists those that do"
            )
        process = runtime.handle(found.pid)
        if text == "-":
            async for data in chunks(sys.stdin.fileno()):
                await process.write(data)
        else:
            await process.write(text.encode("utf-8", "surrogateescape"))
        if enter:
            await process.write(enter)
        if close:
            await process.close_stdin()
    return exits.OK
