"""`reload`: the installed version takes over from the running one; processes never notice.

Knows the supervisor by its pid and its signal, and the server by its health and its settings.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, in_force, local, say
from mhnos_runtime.cli.target import Duration
from mhnos_runtime.errors import MhnosError
from mhnos_runtime.supervisor.handover import STATE_VERSION

if TYPE_CHECKING:
    from mhnos_runtime.config.reload import Change

# ms; a server may take 3 s to say goodbye, and a busy machine much longer to start the next
WAIT_MS = 30_000
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Health:
    """uptime_s: of the server, not of the processes."""

    uptime_s: float
    processes: int


@click.command(short_help="Restart the runtime with the installed version; processes go on.")
@click.option("--state-dir", metavar="DIR", type=click.Path(), help="The runtime's state directory.")
@click.option(
    "--wait",
    "wait_ms",
    type=Duration(),
    default=f"{WAIT_MS}ms",
    help="Give up after so long.  [default: 30s]",
)
def reload(state_dir: str | None, wait_ms: int) -> int:
    """Have the runtime on this machine go on with the code that is installed now, with the certificate that
    is there now, and with the allow_origin and allow_host that its configuration has now. Processes, their
    terminals and output are not touched; clients reconnect by themselves.

    A version that does not understand the state of the running one is not started, and all runs on as it was.
    So it does where the configuration has a mistake. Other settings stay those of the start; it says which
    of them wait for the next one.

    \b
    Examples:
      pip install --upgrade mhnos-runtime && mhnos-runtime reload
      MHNOS_ALLOW_ORIGIN=https://desk.example.com mhnos-runtime reload
    """
    from mhnos_runtime.config import ConfigError, load
    from mhnos_runtime.config.reload import bring

    try:
        settings, _ = load({"state_dir": state_dir} if state_dir else {})
    except ConfigError as error:
        raise MhnosError(f"not reloaded, all runs on: {error}", hint=error.hint) from None
    folder = settings.state_dir
    found = local.require(folder)
    before = in_force.ask(folder)
    _check(found, before)
    with contextlib.suppress(OSError):  # of another user; the signal will say so
        bring(folder, os.environ)
    took_s, health = _reload(found.os_pid, found.url, wait_ms / 1000)
    print(f"reloaded in {took_s:.2f} s; {say.count(health.processes, 'process', 'processes')} went on")
    after = in_force.ask(folder)
    if before is None or after is None:
        print("what it goes by could not be asked; its log says which settings have changed")
    else:
        for line in _told(before, after, in_force.by_variables_here(settings, after)):
            print(line)
    return exits.OK


def _check(found: local.Running, before: in_force.InForce | None) -> None:
    """Raises MhnosError for what the supervisor would find too, and could tell nobody but its log."""
    if found.state_version != STATE_VERSION:
        raise MhnosError(
            "not reloaded: the installed version does not understand the running one's state; all runs on",
            hint="install a version that fits; or, when its processes may end, `mhnos-runtime stop-server`, "
            "and start it again",
        )
    if before is not None and before.problem:
        raise MhnosError(f"not reloaded, all runs on: {before.problem}", hint=before.hint)


def _told(before: in_force.InForce, after: in_force.InForce, here: dict[str, Change]) -> Iterator[str]:
    """What has changed, and what waits."""
    for name, value in after.values.items():
        if name in before.values and before.values[name] != value:
            source = after.sources[name]
            yield f"{name} is {value or 'none'} by {source}, and was {before.values[name] or 'none'}"
    for name, each in {**here, **after.waiting}.items():
        yield f"{name} stays {each.old or 'none'} until the next start: {each.new or 'none'} by {each.source}"


def _reload(pid: int, url: str, wait_s: float) -> tuple[float, Health]:
    before = _health(url)
    started = time.monotonic()
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise MhnosError(f"process {pid} belongs to another user", hint="reload as that user") from None
    while (took_s := time.monotonic() - started) < wait_s:
        health = _health(url)
        if health is not None and health.uptime_s <= took_s:
            return time.monotonic() - started, health
        time.sleep(POLL_S)
    raise _not_reloaded(pid, before, wait_s)


def _not_reloaded(pid: int, before: Health | None, wait_s: float) -> MhnosError:
    if before is None:
        return MhnosError(
            f"no server of supervisor {pid} answered within {wait_s:g} s", hint="its log says why"
        )
    return MhnosError(
        f"the runtime did not reload within {wait_s:g} s; its processes run on",
        hint="its log says why; a version that does not understand the running one's state is not started",
    )


def _health(url: str) -> Health | None:
    """None while nobody answers."""
    try:
        body = local.ask_health(url)
        return Health(float(body["uptime"]), int(body["processes"]["active"]))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
