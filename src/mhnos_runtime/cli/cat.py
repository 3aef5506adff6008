"""`cat`: files of the workspace on standard output, byte by byte."""

from __future__ import annotations

import os
import sys

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.names import shown
from mhnos_runtime.cli.places import FilePath
from mhnos_runtime.cli.target import target_options

_PIECE_BYTES = 256 * 1024


class _FileOrInput(FilePath):
    """`-` is standard input, as for cat(1)."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return "-" if value == "-" else super().convert(value, param, ctx)


@click.command(short_help="Print files of the workspace.")
@click.argument("paths", type=_FileOrInput(), nargs=-1, required=True, metavar="PATH...")
@target_options
def cat(url: str | None, token_file: str | None, paths: tuple[str, ...]) -> int:
    """Write the content of files of the workspace to standard output, one after the other, bytes as they are;
    `-` is standard input.

    \b
    Examples:
      mhnos-runtime cat README.md
      mhnos-runtime cat logs/app.log logs/app.log.1 | grep error
    """
    from mhnos_runtime.cli.looking import hint_of
    from mhnos_runtime.client.contents import Contents
    from mhnos_runtime.client.discovery import discover
    from mhnos_runtime.client.errors import RequestFailed

    code = exits.OK
    sys.stdout.flush()
    with Contents(discover(url, token_file)) as contents:
        for path in paths:
            try:
                if path == "-":
                    _pass_input()
                else:
                    contents.download(path, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            except RequestFailed as error:
                hint = f"`mhnos-runtime ls {shown(path)}` lists it"
                say.error(error.message, hint if error.code == "is-a-directory" else hint_of(error, path))
                code = exits.FAILED
    return code


def _pass_input() -> None:
    while data := os.read(sys.stdin.fileno(), _PIECE_BYTES):
        sys.stdout.buffer.write(data)
