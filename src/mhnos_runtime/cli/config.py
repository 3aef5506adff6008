"""`config`: what is in force and why. Reads settings; changes none."""

from __future__ import annotations

import click

from mhnos_runtime.cli import say


@click.command(short_help="Show the settings in force and where each comes from.")
@click.option("--config", "file", metavar="FILE", type=click.Path(), help="Settings file to read.")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def config(file: str | None, json_: bool) -> None:
    """Print every setting that `serve` would use here: its value, and whether a variable, the settings file
    or
    the default says so.

    \b
    Examples:
      mhnos-runtime config
      MHNOS_RUNTIME_PORT=9000 mhnos-runtime config --json
    """
    from mhnos_runtime.config import describe, load

    settings, warnings = load({"config": file} if file else {})
    rows = describe(settings)
    if json_:
        say.as_json([row._asdict() for row in rows])
    else:
        say.table(("SETTING", "VALUE", "FROM"), [(row.name, row.value or "-", row.source) for row in rows])
    for warning in warnings:
        say.error(warning)
