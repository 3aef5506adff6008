"""`stats`: what processes use, once or live."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import say
from mhnos_runtime.cli.target import Pid, open_direct, open_runtime, run_async, target_options

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import ProcessInfo, ProcessUsage

SAMPLE_S = 0.5  # the span over which the first CPU share is measured
REFRESH_S = 1.0
_HEAD = ("PID", "KIND", "COMMAND", "CPU", "CPU TIME", "MEMORY", "TASKS")


@click.command(short_help="Show what processes use.")
@click.argument("pid", type=Pid(), required=False)
@click.option("--no-stream", is_flag=True, help="Once, not live.")
@click.option("--json", "json_", is_flag=True, help="Once, as JSON.")
@target_options
def stats(url: str | None, token_file: str | None, pid: int | None, no_stream: bool, json_: bool) -> None:
    """Show CPU, memory and tasks of all processes or of PID, each with everything that it started.

    On a terminal the table is live until Ctrl-C; elsewhere it is printed once.

    \b
    Examples:
      mhnos-runtime stats
      mhnos-runtime stats --no-stream 1000
      mhnos-runtime stats --json
    """
    if sys.stdout.isatty() and not (no_stream or json_):
        run_async(_live(url, token_file, pid))
    else:
        _once(url, token_file, pid, json_)


def _once(url: str | None, token_file: str | None, pid: int | None, json_: bool) -> None:
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        usages = runtime.ask(m.Stats(pid=pid), m.ProcessStats).processes
        if json_:
            import msgspec

            say.as_json(msgspec.to_builtins(usages))
            return
        before, then_s = _cpu_ms(usages), time.monotonic()
        time.sleep(SAMPLE_S)
        usages, span_s = runtime.ask(m.Stats(pid=pid), m.ProcessStats).processes, time.monotonic() - then_s
        about = runtime.ask(m.List(all=True), m.ProcessList).processes
    print("\n".join(_table(about, usages, before, span_s)))


async def _live(url: str | None, token_file: str | None, pid: int | None) -> None:
    import asyncio

    async with open_runtime(url, token_file) as runtime:
        before, then_s = _cpu_ms(await runtime.stats(pid)), time.monotonic()
        await asyncio.sleep(SAMPLE_S)
        while True:
            usages, now_s = await runtime.stats(pid), time.monotonic()
            lines = _table(await runtime.list(all=True), usages, before, now_s - then_s)
            print("\x1b[H\x1b[2J" + "\n".join(lines), flush=True)
            before, then_s = _cpu_ms(usages), now_s
            await asyncio.sleep(REFRESH_S)


def _table(
    processes: Sequence[ProcessInfo], usages: Sequence[ProcessUsage], before: Mapping[int, int], span_s: float
) -> list[str]:
    about = {row.pid: row for row in processes}
    rows = []
    for usage in usages:
        row = about.get(usage.pid)
        kind, command = (row.type, " ".join([row.command, *row.args])[:40] or "-") if row else ("-", "-")
        rows.append((str(usage.pid), kind, command, *usage_cells(usage, before.get(usage.pid), span_s)))
    return say.table_lines(_HEAD, rows)


def usage_cells(usage: ProcessUsage, before_cpu_ms: int | None, span_s: float) -> tuple[str, str, str, str]:
    """CPU share of one CPU over the span, CPU time, memory, tasks; "-" where it is not known."""
    share, total = "-", "-"
    if usage.cpu_ms is not None:
        total = f"{usage.cpu_ms / 1000:.2f} s"
        if before_cpu_ms is not None and span_s > 0:
            share = f"{(usage.cpu_ms - before_cpu_ms) / span_s / 10:.1f} %"
    return share, total, say.size(usage.rss_bytes), "-" if usage.tasks is None else str(usage.tasks)


def _cpu_ms(usages: Sequence[ProcessUsage]) -> dict[int, int]:
    return {usage.pid: usage.cpu_ms for usage in usages if usage.cpu_ms is not None}
