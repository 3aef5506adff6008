"""`port`: where a process can be reached, as docker does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import Handle, open_direct, target_options

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import Port


@click.command(short_help="Show where a process can be reached.")
@click.argument("process", type=Handle(ended=False))
@click.argument("name", required=False, metavar="[NAME]")
@target_options
def port(url: str | None, token_file: str | None, process: int | str, name: str | None) -> int:
    """Print the ports of a process, one a line: name and address, a URL where it speaks HTTP. With NAME only
    the address of that one; the exit code is 1 when it has none.

    \b
    Examples:
      mhnos-runtime port worker
      curl $(mhnos-runtime port worker http)
    """
    from mhnos_runtime.cli.processes import found_running

    with open_direct(url, token_file) as runtime:
        told = found_running(runtime, process).ports
    ports = told if isinstance(told, list) else []
    if name is None:
        print("".join(f"{say.printable(each.name)} -> {address_of(each)}\n" for each in ports), end="")
        return exits.OK
    chosen = next((each for each in ports if each.name == name), None)
    if chosen is None or chosen.address is None:
        known = ", ".join(each.name for each in ports if each.address is not None)
        why = "is reached within its own network only" if chosen else "is not there"
        say.error(f"port {name} of process {process} {why}", f"it has: {known}" if known else "it has none")
        return exits.FAILED
    print(address_of(chosen))
    return exits.OK


def address_of(port_: Port) -> str:
    """A URL, or an address and a port; "-" for one that only the process's own network reaches."""
    if isinstance(port_.url, str):
        return say.printable(port_.url)
    if port_.address is None:
        return f"-:{port_.port}"
    return f"[{port_.address}]:{port_.port}" if ":" in port_.address else f"{port_.address}:{port_.port}"
