"""`stats`: what processes use, once."""

from __future__ import annotations

import time

import click

from mhnos_runtime.cli import say
from mhnos_runtime.cli.target import Handle, open_direct, target_options

SAMPLE_S = 0.5  # the span over which the CPU share is measured


@click.command(short_help="Show what processes use, once.")
@click.argument("processes", type=Handle(ended=False), nargs=-1, metavar="[PROCESS...]")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
@target_options
def stats(url: str | None, token_file: str | None, processes: tuple[int | str, ...], json_: bool) -> None:
    """Show CPU, memory and tasks of processes, each with everything that it started; without PROCESS of all
    that run. `top` shows them live.

    \b
    Examples:
      mhnos-runtime stats
      mhnos-runtime stats --json web
    """
    from mhnos_runtime.cli.processes import found_running
    from mhnos_runtime.cli.usage import COMMAND, HEAD, Sampler

    sampler = Sampler(processes)
    with open_direct(url, token_file) as runtime:
        for handle in processes:
            found_running(runtime, handle)
        if json_:
            import msgspec

            say.as_json(msgspec.to_builtins(sampler.usages(runtime)))
            return
        sampler.sample(runtime, time.monotonic())
        time.sleep(SAMPLE_S)
        rows = sampler.sample(runtime, time.monotonic())
    say.table(HEAD, [row.cells() for row in rows], shrink=COMMAND)
