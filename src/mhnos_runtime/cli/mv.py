"""`mv`: give files of the workspace other paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.names import shown
from mhnos_runtime.cli.places import FilePath, folded, last_name
from mhnos_runtime.cli.target import open_direct, target_options
from mhnos_runtime.errors import NotFound

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct


@click.command(short_help="Move and rename files of the workspace.")
@click.argument("sources", type=FilePath(), nargs=-1, required=True, metavar="SOURCE...")
@click.argument("target", type=FilePath(), metavar="DEST")
@click.option("-n", "--no-clobber", is_flag=True, help="Replace nothing.")
@click.option("-f", "--force", is_flag=True, help="Replace without asking, as it does anyway.")
@click.option("-v", "--verbose", is_flag=True, help="Say what is moved.")
@target_options
def mv(
    url: str | None,
    token_file: str | None,
    sources: tuple[str, ...],
    target: str,
    no_clobber: bool,
    force: bool,  # noqa: ARG001 - so that it is no error
    verbose: bool,
) -> int:
    """Move files and directories of the workspace to DEST, or into it if it is a directory. Both are paths of
    the workspace. What stands in the way goes to the trash: `mhnos-runtime trash list` shows it.

    \b
    Examples:
      mhnos-runtime mv draft.md docs/intro.md
      mhnos-runtime mv a.py b.py src/
    """
    from mhnos_runtime.cli.looking import change, destination, hint_of
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    code = exits.OK
    with open_direct(url, token_file) as runtime:
        if len(sources) > 1:
            _require_folder(runtime, target)
        for source in sources:
            try:
                to = destination(runtime, target, last_name(folded(source)))
                message = m.MoveFile(from_=source, to=to, replace=not no_clobber)
                moved = change(runtime, message, m.FileMoved, to)
            except RequestFailed as error:
                if not (no_clobber and error.code == "already-exists"):
                    say.error(error.message, hint_of(error, source))
                    code = exits.FAILED
                continue
            if verbose:
                print(say.printable(f"{folded(source)} -> {moved.file.path}"))
                if moved.trash:
                    say.status(f"what stood there: mhnos-runtime trash restore {shown(moved.trash)}")
    return code


def _require_folder(runtime: Direct, target: str) -> None:
    """Raises NotFound, RequestFailed."""
    from mhnos_runtime.cli.looking import found

    there = found(runtime, target)
    if there is None or there.kind != "directory":
        hint = "several sources go into a directory, which has to be there"
        raise NotFound(f"{'No such' if there is None else 'Not a'} directory: {target}", hint=hint)
