"""`mkdir`: make directories in the workspace."""

from __future__ import annotations

import click

from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.names import shown
from mhnos_runtime.cli.places import FilePath
from mhnos_runtime.cli.target import open_direct, target_options


@click.command(short_help="Make directories in the workspace.")
@click.argument("paths", type=FilePath(folders=True), nargs=-1, required=True, metavar="PATH...")
@click.option("-p", "--parents", is_flag=True, help="Missing parents too; one that is there is no error.")
@target_options
def mkdir(url: str | None, token_file: str | None, paths: tuple[str, ...], parents: bool) -> int:
    """Make each directory, empty. (`cp` makes the directories that it needs.)

    \b
    Examples:
      mhnos-runtime mkdir notes
      mhnos-runtime mkdir -p src/new/deep
    """
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:

        def made(path: str) -> None:
            try:
                runtime.ask(m.MakeDirectory(path=path, parents=parents), m.DirectoryMade)
            except RequestFailed as error:
                hints = {
                    "not-found": f"`mhnos-runtime mkdir -p {shown(path)}` makes its parents too",
                    "already-exists": "with -p, a directory that is there is no error",
                }
                if parents or error.code not in hints:
                    raise
                raise RequestFailed(error.message, code=error.code, hint=hints[error.code]) from None

        return each(paths, made)
