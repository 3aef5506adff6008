"""`events`: what becomes of processes, as it happens."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import endings, exits, say
from mhnos_runtime.cli.target import target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.wire.messages import ProcessEvent


@click.command(short_help="Show starts, readiness and ends of processes as they happen.")
@click.option("--json", "json_", is_flag=True, help="Each as a line of JSON.")
@target_options
def events(url: str | None, token_file: str | None, json_: bool) -> int:
    """Print a line for each process that starts, is ready, ends, or is renamed or removed, until Ctrl-C. Goes
    on after a restart of the server, and says so: what happened meanwhile is not told.

    \b
    Examples:
      mhnos-runtime events
      mhnos-runtime events --json | jq --unbuffered .process.name
    """
    from mhnos_runtime.cli.lasting import lasting
    from mhnos_runtime.client.discovery import discover

    try:
        lasting(discover(url, token_file), lambda runtime: _show(runtime, json_), say.status)
    except KeyboardInterrupt:
        pass
    return exits.OK


def _show(runtime: Direct, json_: bool) -> None:
    """Until the connection is lost, which is raised."""
    from mhnos_runtime.wire import messages as m

    runtime.ask(m.Subscribe(), m.Subscribed)
    while True:
        event = runtime.receive()
        if isinstance(event, m.ProcessEvent):
            print(as_json(event) if json_ else in_words(event), flush=True)


def as_json(event: ProcessEvent) -> str:
    """As the server sends it, in one line."""
    from mhnos_runtime.wire.encode import encode

    return say.json_text(encode(event).decode())


def in_words(event: ProcessEvent) -> str:
    """ "2030-01-31T12:00:00.000Z process started 1000 (name=web, kind=shell, command=make)"."""
    from mhnos_runtime.wire import messages as m

    moment = datetime.datetime.fromtimestamp(event.time / 1000, datetime.UTC)
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{event.time % 1000:03}Z"
    row = event.process
    if not isinstance(row, m.ProcessInfo):
        return f"{stamp} {event.count} events {event.event}"
    told = {
        "name": row.name if isinstance(row.name, str) else "",
        "kind": row.type,
        "command": " ".join([row.command, *row.args]).strip(),
    }
    if event.event == "ended" and isinstance(row.exit, m.ExitInfo):
        told |= {"exit": str(exits.for_exit(row.exit)), "reason": endings.short(row.exit)}
    if event.event == "ready" and isinstance(row.ready, m.Readiness):
        told |= {"state": row.ready.state}
    shown = ", ".join(f"{name}={say.printable(text)}" for name, text in told.items() if text)
    return f"{stamp} process {event.event} {row.pid} ({shown})"
