"""`health`: whether the runtime on this machine serves. Needs no token, and loads little: it is run often."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.errors import MhnosError

POLL_S = 0.05
TIMEOUT_S = 3.0


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
    from mhnos_runtime.config import load

    folder = load({"state_dir": state_dir} if state_dir else {})[0].state_dir
    answer = _wait(folder, time.monotonic() + wait_s)
    if json_:
        say.as_json(answer)
    else:
        print(f"serving for {answer['uptime']:.0f} s, {answer['processes']['active']} processes")
    return exits.OK


def _wait(folder: Path, until: float) -> dict[str, Any]:
    """The first answer. Raises MhnosError when there is none in time."""
    while True:
        try:
            return ask(json.loads((folder / "server.json").read_text())["url"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            if time.monotonic() >= until:
                raise MhnosError(
                    f"no runtime that uses {folder} answers: {error}",
                    hint="its log says why; --state-dir names another one; `mhnos-runtime serve` starts one",
                ) from None
        time.sleep(POLL_S)


def ask(url: str) -> dict[str, Any]:
    """What the server at `url` says of itself. Raises OSError, HTTPException or ValueError."""
    # The certificate is for the name that clients use, not for this address; nothing secret is sent.
    trust = ssl._create_unverified_context() if url.startswith("https:") else None  # noqa: S323
    handlers = [urllib.request.HTTPSHandler(context=trust)] if trust else []
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
    with opener.open(f"{url}/health", timeout=TIMEOUT_S) as response:
        body: dict[str, Any] = json.load(response)
    return body
