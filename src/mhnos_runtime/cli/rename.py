"""`rename`: give a process another name."""

from __future__ import annotations

import click

from mhnos_runtime.cli.target import Handle, NewName, open_direct, target_options


@click.command(short_help="Give a process another name.")
@click.argument("process", type=Handle())
@click.argument("name", type=NewName())
@target_options
def rename(url: str | None, token_file: str | None, process: int | str, name: str) -> None:
    """Give a process a name: lower-case letters, digits and "-", at most 40, not digits alone. No other
    process that runs may have it.

    \b
    Examples:
      mhnos-runtime rename 1000 web
      mhnos-runtime rename web web-old
    """
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        runtime.ask(m.Rename(pid=process, name=name), m.Renamed)
