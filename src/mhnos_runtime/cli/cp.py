"""`cp`: files and directories into the workspace, out of it, and inside it. Knows what the words mean; how
bytes get there is copying's.
"""

from __future__ import annotations

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.places import FilePlace, Place
from mhnos_runtime.cli.target import open_direct, target_options
from mhnos_runtime.errors import MhnosError


@click.command(short_help="Copy files into the workspace, out of it and in it.")
@click.argument("sources", type=FilePlace(), nargs=-1, required=True, metavar="SOURCE...")
@click.argument("target", type=FilePlace(), metavar="DEST")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-n", "--no-clobber", is_flag=True, help="Replace no file.")
@click.option("-v", "--verbose", is_flag=True, help="Say what is copied.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="LINE",
    help="Of directories, not what this names, as a line of .gitignore; may be repeated.",
)
@click.option("-a", "-r", "-R", "-p", "-f", "usual", is_flag=True, hidden=True, help="As it does anyway.")
@target_options
def cp(
    url: str | None,
    token_file: str | None,
    sources: tuple[Place, ...],
    target: Place,
    quiet: bool,
    no_clobber: bool,
    verbose: bool,
    exclude: tuple[str, ...],
    usual: bool,  # noqa: ARG001 - so that it is no error
) -> int:
    """Copy files and directories to DEST, or into it if it is a directory. A path of the workspace has a
    colon before it: `:/src/a`, `:src/a`. Modes and times stay. `dir/.` is what is in a directory.

    `-` is standard input or output: content of a file, or a directory as a tar archive. A large file that was
    interrupted goes on where it was when the same command is given again.

    \b
    Examples:
      mhnos-runtime cp notes.txt :/docs/
      mhnos-runtime cp ./site :/www
      mhnos-runtime cp :/dist/app.tgz .
      mhnos-runtime cp :/src :/src-before
      mhnos-runtime cp --exclude node_modules/ --exclude '*.log' . :/app
      mhnos-runtime cp :/src - | tar tv
      tar c . | mhnos-runtime cp - :/backup/
    """
    from mhnos_runtime.cli.copies import Step, planned
    from mhnos_runtime.cli.copying import Copying
    from mhnos_runtime.cli.interrupts import as_keyboard_interrupts
    from mhnos_runtime.client.discovery import discover

    _check(sources, target, bool(exclude))
    with open_direct(url, token_file) as runtime:
        steps = planned(runtime, sources, target)
    code = exits.OK
    copying = Copying(
        discover(url, token_file),
        quiet=quiet,
        replace=not no_clobber,
        verbose=verbose,
        exclude=exclude,
    )
    with as_keyboard_interrupts(), copying:
        for step in steps:
            try:
                if not isinstance(step, Step):
                    raise step
                whole = copying.carry_out(step)
            except (MhnosError, OSError) as error:
                _tell(error)
                whole = False
            code = code if whole else exits.FAILED
    return code


def _tell(error: MhnosError | OSError) -> None:
    if isinstance(error, MhnosError):
        say.error(error.message, error.hint)
    elif isinstance(error, BrokenPipeError):
        raise error
    else:
        say.error(say.fault(error))


def _check(sources: tuple[Place, ...], target: Place, excludes: bool) -> None:
    """Raises UsageError for what cannot be meant."""
    if excludes and any(source.is_stream or (source.inside and target.inside) for source in sources):
        raise click.UsageError(
            "--exclude is for directories that are copied into the workspace or out of it; tar has an "
            "--exclude of its own, and a copy inside the workspace is whole."
        )
    if not (target.inside or all(source.inside for source in sources)):
        raise click.UsageError(
            "Neither SOURCE nor DEST is in the workspace: a path in it has a colon before it, "
            "such as :/docs/notes.txt."
        )
    if sum(source.is_stream for source in sources) > 1 or (target.is_stream and len(sources) > 1):
        raise click.UsageError("- is for one file or directory.")
