"""`logs`: print what a process has written, all or from a given place. Never writes to the process."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits
from mhnos_runtime.cli.lines import LastLines, Stamper
from mhnos_runtime.cli.target import (
    Handle,
    ParamType,
    open_runtime,
    parse_duration_ms,
    run_async,
    target_options,
)

if TYPE_CHECKING:
    from mhnos_runtime.cli.session import StatusLines
    from mhnos_runtime.client.process import ClientProcess
    from mhnos_runtime.client.runtime import Runtime
    from mhnos_runtime.client.types import Gap, Output

_UNITS_BYTES = {"b": 1, "k": 1024, "m": 1024**2}


@dataclass(frozen=True, slots=True)
class Tail:
    """The last so many lines, or bytes."""

    lines: int | None = None
    size_bytes: int | None = None


class TailType(ParamType):
    """ "20" lines, or "512b", "4k", "1m" bytes."""

    name = "lines|bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Tail:
        if isinstance(value, Tail):
            return value
        match = re.fullmatch(r"(\d{1,12})([bkm]?)(?:i?b)?", str(value).lower())
        if match is None:
            self.fail(f"{value!r} is neither a number of lines nor of bytes such as 512b or 4k", param, ctx)
        count = int(match[1])
        return Tail(size_bytes=count * _UNITS_BYTES[match[2]]) if match[2] else Tail(lines=count)


class Since(ParamType):
    """A moment: "5m" (ago), ISO 8601 (local time without a zone), or epoch seconds; as epoch ms."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if re.fullmatch(r"\d{9,}(\.\d+)?", text):
            return int(float(text) * 1000)
        span_ms = parse_duration_ms(text)
        if span_ms is not None:
            return int(time.time() * 1000) - span_ms
        try:
            return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)
        except ValueError:
            self.fail(
                f"{value!r} is neither a duration such as 5m nor a time such as 2030-01-31T12:00", param, ctx
            )


@click.command(short_help="Show what a process has written.")
@click.argument("pid", type=Handle())
@click.option("-f", "--follow", is_flag=True, help="Go on until the process ends.")
@click.option("--since", "since_ms", type=Since(), help="Not before: 5m (ago) or 2030-01-31T12:00.")
@click.option("-n", "--tail", type=TailType(), help="Only the last 20 (lines) or 4k (bytes).")
@click.option("-t", "--timestamps", is_flag=True, help="Say when each line began.")
@target_options
def logs(
    url: str | None,
    token_file: str | None,
    pid: int | str,
    follow: bool,
    since_ms: int | None,
    tail: Tail | None,
    timestamps: bool,
) -> int:
    """Show the output of process PID that is kept, also after its end: its stdout on stdout, stderr on
    stderr.

    \b
    Examples:
      mhnos-runtime logs 1000
      mhnos-runtime logs -f --tail 20 1000
      mhnos-runtime logs --since 5m --timestamps 1000 2>errors.txt
    """
    return run_async(_logs(url, token_file, pid, follow, since_ms, tail or Tail(), timestamps))


async def _logs(
    url: str | None,
    token_file: str | None,
    handle: int | str,
    follow: bool,
    since_ms: int | None,
    tail: Tail,
    timestamps: bool,
) -> int:
    from mhnos_runtime.cli.session import StatusLines

    status = StatusLines()
    async with open_runtime(url, token_file, on_state=status.connection if follow else None) as runtime:
        pid = await runtime.pid(handle)
        timeline = await runtime.timeline(pid) if timestamps or since_ms is not None else []
        process = await _attach(runtime, pid, timeline, since_ms, tail)
        stamper = Stamper(timeline, process.attached_at or 0) if timestamps else None
        await _print_all(process, follow, tail, Printer(status, stamper))
    return exits.OK


async def _attach(
    runtime: Runtime, pid: int, timeline: Sequence[tuple[int, int]], since_ms: int | None, tail: Tail
) -> ClientProcess:
    if since_ms is not None:
        start = next((offset for offset, time_ms in timeline if time_ms >= since_ms), None)
        return await runtime.attach(pid, from_="end" if start is None else start)
    return await runtime.attach(pid, tail=tail.size_bytes)


class Printer:
    """Writes chunks to stdout and stderr, in their order; gaps as status lines."""

    def __init__(self, status: StatusLines, stamper: Stamper | None) -> None:
        from mhnos_runtime.cli.terminal import Sink

        self._sinks = {"stdout": Sink(1), "stderr": Sink(2)}
        self._last = "stdout"
        self._status = status
        self._stamper = stamper
        status.use(self._sinks["stderr"])

    async def show(self, item: Output | Gap) -> None:
        from mhnos_runtime.cli.session import gap_in_words
        from mhnos_runtime.client.types import Gap

        if isinstance(item, Gap):
            self._status.say(gap_in_words(item))
            return
        if item.stream != self._last:
            await self._sinks[self._last].flush()
            self._last = item.stream
        await self._sinks[item.stream].write(self._stamper.feed(item) if self._stamper else item.data)

    async def flush(self) -> None:
        for sink in self._sinks.values():
            await sink.flush()


async def _print_all(process: ClientProcess, follow: bool, tail: Tail, printer: Printer) -> None:
    kept = LastLines(tail.lines) if tail.lines is not None else None
    async for item in _kept(process):
        if kept is None:
            await printer.show(item)
        else:
            kept.feed(item)
    for item in kept.items() if kept is not None else ():
        await printer.show(item)
    if follow:
        async for item in process.output():
            await printer.show(item)
    await printer.flush()


async def _kept(process: ClientProcess) -> AsyncIterator[Output | Gap]:
    """What had been written when this client attached."""
    output = process.output()
    while (process.consumed or 0) < (process.attached_at or 0):
        item = await anext(output, None)
        if item is None:
            return
        yield item
