"""`watch`: what changes in the workspace, as it happens."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.names import raw, shown
from mhnos_runtime.cli.places import FilePath, folded
from mhnos_runtime.cli.target import target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.wire.messages import FilesChanged

_COLOURS = {"created": "32", "changed": "33", "removed": "31"}


@click.command(short_help="Show what changes in the workspace as it happens.")
@click.argument("path", type=FilePath(), default="/", metavar="[PATH]")
@click.option(
    "--ignore",
    multiple=True,
    metavar="LINE",
    help="A line as in .gitignore, instead of the usual ones; may be repeated.",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Ignore nothing.")
@click.option("--json", "json_", is_flag=True, help="Each change as a line of JSON.")
@target_options
def watch(
    url: str | None,
    token_file: str | None,
    path: str,
    ignore: tuple[str, ...],
    everything: bool,
    json_: bool,
) -> int:
    """Print a line for each file below PATH, or of the file PATH, that is created, changed or removed, until
    Ctrl-C; a file that moves is removed and created. Dependencies, version control and caches are left out,
    unless --all or --ignore say otherwise. Goes on after a restart of the server, and says so: what happened
    meanwhile is not told.

    \b
    Examples:
      mhnos-runtime watch
      mhnos-runtime watch src --ignore '*.log' --ignore build/
      mhnos-runtime watch --json | jq --unbuffered -r .path
    """
    from mhnos_runtime.cli.lasting import lasting
    from mhnos_runtime.client.discovery import discover

    lines = [] if everything else list(ignore) or None
    try:
        return lasting(
            discover(url, token_file), lambda runtime: _show(runtime, path, lines, json_), say.status
        )
    except KeyboardInterrupt:
        return exits.OK


def _show(runtime: Direct, path: str, ignore: list[str] | None, json_: bool) -> int:
    """Until the watch ends, or the connection is lost, which is raised."""
    from mhnos_runtime.wire import messages as m

    folder, ignore = _meant(runtime, path, ignore)
    watched = runtime.ask(m.WatchFiles(path=folder, ignore=ignore), m.FilesWatched)
    if sys.stderr.isatty():
        how = ", by polling: some seconds late" if watched.by == "polling" else ""
        say.status(f"watching {folded(path)}{how}; Ctrl-C ends it")
    while True:
        event = runtime.receive()
        if not isinstance(event, m.FilesChanged) or event.watch != watched.watch:
            continue
        _tell(event, json_, watched.path)
        if event.ended is not None:
            say.error(f"{watched.path} is watched no more: {event.ended}")
            return exits.FAILED


def _meant(runtime: Direct, path: str, ignore: list[str] | None) -> tuple[str, list[str] | None]:
    """The directory to be watched and what to ignore in it: of a file, everything else. Editors replace
    files, so that a file is only a name in its directory."""
    from mhnos_runtime.cli.looking import look

    if look(runtime, path).kind != "file":
        return path, ignore
    folder, _, name = folded(path).rpartition("/")
    return folder or "/", ["/*", "!/" + re.sub(r"([\\*?\[ ])", r"\\\1", name)]


def _tell(event: FilesChanged, json_: bool, path: str) -> None:
    if json_:
        import msgspec

        for change in event.changes:
            print(say.json_text(msgspec.json.encode(change).decode()))
        if event.rescan:
            print('{"rescan":true}')
    else:
        for change in event.changes:
            name = shown(change.path) if sys.stdout.isatty() else raw(change.path)
            name += "/" if change.kind == "directory" else ""
            print(say.paint(change.what, _COLOURS[change.what], sys.stdout), name)
        if event.rescan:
            say.status(f"too many changes to name; look at {path} again")
    sys.stdout.flush()
