"""`check`: tries every request of the protocol on a running runtime and says what it saw.

Speaks the wire by hand, as a foreign client would: what the Python client hides would not be seen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.probe import Result, probe
from mhnos_runtime.cli.target import run_async

GREEN = "32"


@click.command(short_help="Try every request on a running runtime.")
@click.argument("url", required=False)
@click.option("--token-file", metavar="FILE", type=click.Path(), help="File that holds the token.")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def check(url: str | None, token_file: str | None, json_: bool) -> int:
    """Connect to the runtime at URL, twice: as a client of protocol 1.0 and as one of 1.1; try each request,
    and print what was seen and how long it took.

    Starts a shell of its own, whose commands go into no history, and removes it with its record; writes one
    small file, .mhnos-check, into the workspace, and removes that too. How large the workspace is makes no
    difference. The exit code is 1 when something failed.

    \b
    Examples:
      mhnos-runtime check
      mhnos-runtime check https://desk.example.com --token-file ~/desk.token
      mhnos-runtime check --json
    """
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.discovery import discover

    target = discover(url, token_file)
    Direct.open(target).close()  # nobody there, or a wrong token: one error that says what to do
    results = run_async(probe(target))
    if json_:
        say.as_json([result._asdict() for result in results])
    else:
        _show(target.url, results)
    return exits.OK if all(result.ok for result in results) else exits.FAILED


def _show(url: str, results: Sequence[Result]) -> None:
    print(f"{url}\n")
    for result in results:
        mark = (
            say.paint("ok    ", GREEN, sys.stdout) if result.ok else say.paint("failed", say.RED, sys.stdout)
        )
        seen = say.printable(result.seen)
        print(f"{mark}  {result.protocol}  {result.step:<12}  {result.took_ms:8.1f} ms  {seen}".rstrip())
    failed = sum(not result.ok for result in results)
    print(f"\n{len(results) - failed} ok, {failed} failed")
