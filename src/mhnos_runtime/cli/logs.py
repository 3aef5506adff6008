"""`logs`: print what a process has written, all or from a given place. Never writes to the process."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits
from mhnos_runtime.cli.descriptors import FD_OF, terminals, write_all
from mhnos_runtime.cli.target import (
    Handle,
    ParamType,
    open_direct,
    open_runtime,
    parse_duration_ms,
    run_async,
    target_options,
)

if TYPE_CHECKING:
    from mhnos_runtime.cli.session import StatusLines
    from mhnos_runtime.cli.view import Piece, Selection, View
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.process import ClientProcess
    from mhnos_runtime.client.types import Gap, Output, Stream
    from mhnos_runtime.wire.messages import Attach

_UNITS_BYTES = {"b": 1, "k": 1024, "m": 1024**2}


@dataclass(frozen=True, slots=True)
class Tail:
    """The last so many lines, or bytes."""

    lines: int | None = None
    size_bytes: int | None = None


class TailType(ParamType):
    """ "20" lines, or "512b", "4k", "1m" bytes; "all", as in docker."""

    name = "lines|bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Tail:
        if isinstance(value, Tail):
            return value
        if value == "all":
            return Tail()
        match = re.fullmatch(r"(\d{1,12})([bkm]?)(?:i?b)?", str(value).lower())
        if match is None:
            self.fail(f"{value!r} is neither a number of lines nor of bytes such as 512b or 4k", param, ctx)
        count = int(match[1])
        return Tail(size_bytes=count * _UNITS_BYTES[match[2]]) if match[2] else Tail(lines=count)


class Moment(ParamType):
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
@click.argument("pid", metavar="PROCESS", type=Handle())
@click.option("-f", "--follow", is_flag=True, help="Go on until the process ends.")
@click.option("--since", "since_ms", type=Moment(), help="Not before: 5m (ago) or 2030-01-31T12:00.")
@click.option("--until", "until_ms", type=Moment(), help="Not after: 5m (ago) or 2030-01-31T12:00.")
@click.option("-n", "--tail", type=TailType(), help="Only the last 20 (lines) or 4k (bytes).")
@click.option("-t", "--timestamps", is_flag=True, help="Say when each line began, within a second.")
@click.option("--grep", metavar="PATTERN", help="Only lines in which this is found (Python's re).")
@click.option("-i", "--ignore-case", is_flag=True, help="With --grep: upper and lower case are the same.")
@target_options
def logs(
    url: str | None,
    token_file: str | None,
    pid: int | str,
    follow: bool,
    since_ms: int | None,
    until_ms: int | None,
    tail: Tail | None,
    timestamps: bool,
    grep: str | None,
    ignore_case: bool,
) -> int:
    """Show the output of PROCESS that is kept, also after its end: its stdout on stdout, stderr on
    stderr. Says which part is no longer kept, unless only an end of it is asked for.

    With --grep, --tail means the last lines of those that match, and the exit code is 1 if none does.

    \b
    Examples:
      mhnos-runtime logs 1000
      mhnos-runtime logs -f --tail 20 1000
      mhnos-runtime logs --since 5m --timestamps 1000 2>errors.txt
      mhnos-runtime logs --grep 'error|warning' -i 1000
    """
    tail = tail or Tail()
    if since_ms is not None and tail.size_bytes is not None:
        raise click.UsageError("--since and --tail in bytes both say where to begin.")
    wanted = Wanted(pid, since_ms, until_ms, tail, _pattern(grep, ignore_case), timestamps)
    if follow and (until_ms is None or until_ms > time.time() * 1000):
        matched = run_async(_follow(url, token_file, wanted))
    else:
        matched = _show(url, token_file, wanted)
    return exits.OK if grep is None or matched else exits.FAILED


@dataclass(frozen=True, slots=True)
class Wanted:
    """Times are epoch ms."""

    pid: int | str
    since_ms: int | None
    until_ms: int | None
    tail: Tail
    pattern: re.Pattern[str] | None
    timestamps: bool

    def selection(self) -> Selection:
        from mhnos_runtime.cli.view import Selection

        return Selection(self.tail.lines, self.pattern, stamped=self.timestamps)


def _pattern(grep: str | None, ignore_case: bool) -> re.Pattern[str] | None:
    try:
        return None if grep is None else re.compile(grep, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise click.UsageError(f"--grep: {error}") from None


# What is kept: without an event loop, which takes longer to import than a small log to read


def _show(url: str | None, token_file: str | None, wanted: Wanted) -> bool:
    """Whether there was anything to show."""
    from mhnos_runtime.cli.view import View

    with open_direct(url, token_file) as direct:
        needs_times = wanted.timestamps or wanted.until_ms is not None
        timeline = _timeline(direct, wanted.pid) if needs_times else []
        selection = replace(wanted.selection(), until=_end(timeline, wanted.until_ms))
        view = View(selection, timeline, terminals())
        for item in _kept(direct, url, token_file, wanted):
            _write(view.feed(item))
    _write(view.end())
    return view.shown


def _timeline(direct: Direct, pid: int | str) -> list[tuple[int, int]]:
    from mhnos_runtime.wire import messages as m

    times: list[tuple[int, int]] = []
    from_: int | None = 0
    while from_ is not None:
        page = direct.ask(m.Timeline(pid=pid, from_=from_), m.TimelineAnswer)
        times += page.times
        from_ = page.next
    return times


def _end(timeline: Sequence[tuple[int, int]], until_ms: int | None) -> int | None:
    """The offset of the first piece that came later."""
    if until_ms is None:
        return None
    return next((offset for offset, time_ms in timeline if time_ms > until_ms), None)


def _kept(direct: Direct, url: str | None, token_file: str | None, wanted: Wanted) -> Iterator[Output | Gap]:
    """What has been written, also if a pager that is not read lets the connection time out."""
    from mhnos_runtime.client.errors import ConnectionLost
    from mhnos_runtime.client.types import Output
    from mhnos_runtime.wire.messages import Attach

    attach = Attach(pid=wanted.pid, tail=wanted.tail.size_bytes, since=wanted.since_ms)
    next_: int | None = None
    while True:
        try:
            for item in _replay(direct, attach):
                next_ = item.next if isinstance(item, Output) else item.to
                yield item
            return
        except ConnectionLost:
            if next_ is None or next_ == attach.from_:
                raise
        attach = Attach(pid=wanted.pid, from_=next_)
        direct.close()
        direct = open_direct(url, token_file)


def _replay(direct: Direct, attach: Attach) -> Iterator[Output | Gap]:
    from mhnos_runtime.client.received import failure
    from mhnos_runtime.client.types import Gap, Output
    from mhnos_runtime.wire import frames
    from mhnos_runtime.wire import messages as m

    direct.send(attach)
    while not isinstance(got := direct.receive(), m.Attached):
        if isinstance(got, frames.DataFrame):
            stream: m.Stream = "stderr" if got.kind == frames.STDERR else "stdout"
            yield Output(stream, got.offset, bytes(got.payload), replay=True)
        elif isinstance(got, m.Gap):
            yield Gap(got.from_, got.to)
        elif isinstance(got, m.ErrorMessage):
            raise failure(got)


def _write(pieces: Iterator[Piece]) -> None:
    for stream, data in pieces:
        write_all(FD_OF[stream], data)


# What comes


async def _follow(url: str | None, token_file: str | None, wanted: Wanted) -> bool:
    """Whether there was anything to show."""
    import asyncio

    from mhnos_runtime.cli.session import StatusLines
    from mhnos_runtime.cli.view import View

    status = StatusLines()
    async with open_runtime(url, token_file, on_state=status.connection) as runtime:
        pid = await runtime.pid(wanted.pid)
        timeline = await runtime.handle(pid).timeline() if wanted.timestamps else []
        process = await runtime.attach(pid, tail=wanted.tail.size_bytes, since=wanted.since_ms)
        view = View(wanted.selection(), timeline, terminals())
        view.live_from(process.attached_at or 0)
        left_s = None if wanted.until_ms is None else wanted.until_ms / 1000 - time.time()
        printer = Printer(status, process)
        try:
            async with asyncio.timeout(left_s):
                await _print_all(process, view, printer)
        except TimeoutError:
            pass  # the moment until which it was to be shown
        await printer.show(view.end())
        await printer.flush()
    return view.shown


class Printer:
    """Writes to stdout and stderr, in order."""

    def __init__(self, status: StatusLines, process: ClientProcess) -> None:
        from mhnos_runtime.cli.terminal import Sink

        self._sinks = {stream: Sink(fd) for stream, fd in FD_OF.items()}
        self._last: Stream = "stdout"
        status.use(self._sinks["stderr"], process)

    async def show(self, pieces: Iterator[Piece]) -> None:
        for stream, data in pieces:
            if stream != self._last:
                await self._sinks[self._last].flush()
                self._last = stream
            await self._sinks[stream].write(data)

    async def flush(self) -> None:
        for sink in self._sinks.values():
            await sink.flush()


async def _print_all(process: ClientProcess, view: View, printer: Printer) -> None:
    async for item in _written(process):
        await printer.show(view.feed(item))
    await printer.show(view.settle())
    async for item in process.output():
        await printer.show(view.feed(item))


async def _written(process: ClientProcess) -> AsyncIterator[Output | Gap]:
    """What had been written when this client attached."""
    output = process.output()
    while (process.consumed or 0) < (process.attached_at or 0):
        item = await anext(output, None)
        if item is None:
            return
        yield item
