"""`health`: whether the runtime on this machine serves. Needs no token, and loads little: it is run often."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from mhnos_runtime.cli import exits, local, say
from mhnos_runtime.errors import MhnosError

POLL_S = 0.05


@click.command(short_help="Ask the runtime on this machine whether it serves.")
@click.option("--state-dir", metavar="DIR", type=click.Path(), help="The runtime's state directory.")
@click.option(
    "--wait", "wait_s", metavar="SECONDS", type=click.FloatRange(0), default=0, help="Ask for so long."
)
@click.option("--json", "json_", is_flag=True, help="What the server answers, as JSON.")
def health(state_dir: str | None, wait_s: float, json_: bool) -> int:
    """Exit with 0 when the runtime on this machine answers, else with 1: for health checks and installers.

    \b
    Examples:
      mhnos-runtime health
      mhnos-runtime health --wait 10
    """
    answer = _wait(local.state_dir(state_dir), time.monotonic() + wait_s)
    if json_:
        say.as_json(answer)
    else:
        running = say.count(answer["processes"]["active"], "process", "processes")
        print(f"serving for {answer['uptime']:.0f} s, {running}")
    return exits.OK


def _wait(folder: Path, until: float) -> dict[str, Any]:
    """The first answer. Raises MhnosError when there is none in time."""
    while True:
        try:
            return local.health_of(folder)
        except MhnosError:
            if time.monotonic() >= until:
                raise
        time.sleep(POLL_S)
