"""`config`: what is in force and why, and what waits. Reads settings; changes none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import in_force, local, say

if TYPE_CHECKING:
    from mhnos_runtime.config import Settings
    from mhnos_runtime.config.reload import Change


@click.command(short_help="Show the settings in force and where each comes from.")
@click.option("--config", "file", metavar="FILE", type=click.Path(), help="Settings file of the next start.")
@click.option("--start", is_flag=True, help="What `serve` would use here, also where a runtime runs.")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def config(file: str | None, start: bool, json_: bool) -> None:
    """Print every setting: its value, and whether a flag, a variable, the settings file or the default says
    so.

    Where a runtime runs, its settings are shown, and beside them what has changed since its start: a reload
    applies allow_origin and allow_host, and the others wait for the next start. Else, with --start and with
    --config, those that `serve` would use here.

    \b
    Examples:
      mhnos-runtime config
      MHNOS_RUNTIME_PORT=9000 mhnos-runtime config --start --json
    """
    from mhnos_runtime.config import describe, load

    settings, warnings = load({"config": file} if file else {})
    found = None if file or start else in_force.ask(settings.state_dir)
    if found is not None:
        _show_running(settings, found, json_)
    elif json_:
        say.as_json([{**row._asdict(), "running": False, "waiting": None} for row in describe(settings)])
    else:
        print(("" if file or start else _unasked(settings)) + "What `serve` would use here:")
        rows = [(row.name, row.value or "-", row.source) for row in describe(settings)]
        say.table(("SETTING", "VALUE", "FROM"), rows)
    for warning in warnings:
        say.error(warning)


def _unasked(settings: Settings) -> str:
    """Why no runtime's settings are shown: a certificate of one's own may keep one that runs from being
    asked."""
    place = local.find(settings.state_dir)
    if place is None:
        return "No runtime runs. "
    return f"The runtime at {place.url} (pid {place.os_pid}) cannot be asked: `mhnos-runtime ps` says why. "


def _show_running(settings: Settings, found: in_force.InForce, json_: bool) -> None:
    from mhnos_runtime.config.table import BY_NAME

    waiting = {**in_force.by_variables_here(settings, found), **found.waiting}
    names = [*found.values, *(name for name in waiting if name not in found.values)]
    if json_:
        say.as_json(
            [
                {
                    "name": name,
                    "value": found.values.get(name, ""),
                    "source": found.sources.get(name, "default"),
                    "help": BY_NAME[name].help if name in BY_NAME else "",
                    "running": True,
                    "waiting": waiting[name]._asdict() if name in waiting else None,
                }
                for name in names
            ]
        )
        return
    place = local.require(settings.state_dir)
    print(f"The runtime that runs at {place.url} (pid {place.os_pid}) uses:")
    rows = [(name, found.values.get(name) or "-", found.sources.get(name, "-")) for name in names]
    if not waiting:
        say.table(("SETTING", "VALUE", "FROM"), rows)
    else:
        say.table(
            ("SETTING", "VALUE", "FROM", "WAITING"), [(*row, _waits(waiting.get(row[0]))) for row in rows]
        )
    if found.problem:
        say.error(f"neither a reload nor a start would work: {found.problem}", found.hint)


def _waits(change: Change | None) -> str:
    if change is None:
        return ""
    return (
        f"{change.new or 'none'} by {change.source}, for {'a reload' if change.reloads else 'the next start'}"
    )
