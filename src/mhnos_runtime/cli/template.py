"""`template`: print a file to begin with. Knows the templates that come with the runtime."""

from __future__ import annotations

from importlib import resources

import click

NAMES = ("default", "nodejs-compat")


@click.command(short_help="Print a workerd config to begin with.")
@click.argument("name", type=click.Choice(NAMES), default="default")
def template(name: str) -> None:
    """Print a workerd config to begin with; it serves worker.js beside it.

    \b
    Examples:
      mhnos-runtime template > ~/mhnos-workspace/app.capnp
      mhnos-runtime template nodejs-compat
    """
    click.echo(read(name), nl=False)


def read(name: str) -> str:
    """The text of a template."""
    return (resources.files("mhnos_runtime") / "templates" / f"{name}.capnp").read_text(encoding="utf-8")
