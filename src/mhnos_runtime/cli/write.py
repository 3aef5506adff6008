"""`write`: type into a process from a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import Pid, open_direct, open_runtime, run_async, target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.types import InputUncertain

AT_ONCE_BYTES = 64 * 1024  # what fits into one frame of input


@click.command(short_help="Type into a process.")
@click.argument("pid", type=Pid())
@click.argument("text")
@click.option("--enter", is_flag=True, help="Press Enter after it.")
@click.option("--close", is_flag=True, help="End the process's input after it.")
@target_options
def write(url: str | None, token_file: str | None, pid: int, text: str, enter: bool, close: bool) -> int:
    """Type TEXT into process PID; `-` sends this command's own input, bytes as they are.

    Waits while the process is slow to read, and over lost connections; exits with 1 when its input is closed.

    \b
    Examples:
      mhnos-runtime write --enter 1000 "make test"
      mhnos-runtime write --close 1000 - < data.csv
    """
    client = os.urandom(16).hex()
    typed = None if text == "-" else text.encode("utf-8", "surrogateescape") + (b"\r" if enter else b"")
    if typed is None or not _typed_at_once(url, token_file, pid, typed, close, client):
        run_async(_type(url, token_file, pid, typed, enter, close, client))
    return exits.OK


def _typed_at_once(
    url: str | None, token_file: str | None, pid: int, typed: bytes, close: bool, client: str
) -> bool:
    """Type what fits into one frame, without an event loop. False: that takes patience; under the same name
    of the client, what was typed already is not typed again."""
    from mhnos_runtime.client.errors import ConnectionLost, RequestTimedOut
    from mhnos_runtime.wire import messages as m

    if len(typed) > AT_ONCE_BYTES:
        return False
    try:
        with open_direct(url, token_file) as runtime:
            _check_runs(pid, (row.pid for row in runtime.ask(m.List(), m.ProcessList).processes))
            if typed and not _acknowledged(runtime, pid, typed, client):
                return False
            if close:
                runtime.ask(m.CloseStdin(pid), m.StdinClosed)
    except (ConnectionLost, RequestTimedOut):
        return False
    return True


def _acknowledged(runtime: Direct, pid: int, typed: bytes, client: str) -> bool:
    """Whether the process got it; False: its queue is full. Raises RequestFailed."""
    from mhnos_runtime.client.received import failure
    from mhnos_runtime.wire import frames
    from mhnos_runtime.wire import messages as m

    runtime.ask(m.OpenInput(pid, client), m.InputOpened)
    runtime.send_frame(frames.pack_header(frames.INPUT, frames.NUMBERED, pid, 0) + typed)
    while True:
        got = runtime.receive()
        if isinstance(got, m.InputAck) and got.next >= len(typed):
            return True
        if isinstance(got, m.ErrorMessage):
            if got.retry is True:
                return False
            raise failure(got)


async def _type(
    url: str | None,
    token_file: str | None,
    pid: int,
    typed: bytes | None,
    enter: bool,
    close: bool,
    client: str,
) -> None:
    """However long it takes, and over lost connections. typed: None for this command's own input."""
    from mhnos_runtime.cli.session import chunks, uncertain_in_words

    def uncertain(found: InputUncertain) -> None:
        say.error(uncertain_in_words(found))

    async with open_runtime(url, token_file, on_uncertain=uncertain) as runtime:
        runtime.client_name = client
        _check_runs(pid, (row.pid for row in await runtime.list()))
        process = runtime.handle(pid)
        if typed is not None:
            await process.write(typed)
        else:
            async for data in chunks(sys.stdin.fileno()):
                await process.write(data)
            if enter:
                await process.write(b"\r")
        if close:
            await process.close_stdin()


def _check_runs(pid: int, running: Iterable[int]) -> None:
    from mhnos_runtime.client.errors import RequestFailed

    if pid not in running:
        raise RequestFailed(f"process {pid} does not run", hint="`mhnos-runtime ps` lists those that do")
