"""`rm`: forget ended processes, with their output; and put files of the workspace into the trash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mhnos_runtime.cli.asking import each
from mhnos_runtime.cli.names import shown
from mhnos_runtime.cli.places import FilePath, Place
from mhnos_runtime.cli.target import Handle, ParamType, open_direct, target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct


class Removable(ParamType):
    """The word for a process or a file; which one is meant also depends on the options."""

    name = "process or path"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        if ctx.params.get("recursive") or ctx.params.get("outright") or _is_path(incomplete):
            return FilePath().shell_complete(ctx, param, incomplete)
        return Handle().shell_complete(ctx, param, incomplete)


def _is_path(text: str) -> bool:
    """Whether no process can be meant: none has such a name."""
    return any(char in text for char in ":/.")


@click.command(short_help="Remove ended processes, or files of the workspace.")
@click.argument("things", type=Removable(), nargs=-1, required=True, metavar="PROCESS|PATH...")
@click.option("-f", "--force", is_flag=True, help="Kill first what still runs; not to find one is no error.")
@click.option("-i", "--interactive", is_flag=True, help="Ask before each.")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Directories with what is in them, too.")
@click.option("--outright", is_flag=True, help="Files are gone at once, not in the trash.")
@click.option("-v", "--verbose", is_flag=True, help="Name the files, and how each is had back.")
@target_options
@click.pass_context
def rm(
    context: click.Context,
    url: str | None,
    token_file: str | None,
    things: tuple[str, ...],
    force: bool,
    interactive: bool,
    recursive: bool,
    outright: bool,
    verbose: bool,
) -> int:
    """Remove the record and the output of each process. Of its own accord the runtime removes them some time
    after the end (retain_seconds, 10 minutes), or when many others have ended since (retain_count, 256).

    What has a colon, a slash or a dot in it is a file of the workspace: `notes.txt`, `:build`; with -r or
    --outright each word is one. Files go to the trash, from which `mhnos-runtime trash restore` has them
    back.

    \b
    Examples:
      mhnos-runtime rm 1000 build
      mhnos-runtime rm -f web
      mhnos-runtime rm src/old.py
      mhnos-runtime rm -r build
    """
    files = recursive or outright
    meant = [_meant(context, thing, files) for thing in things]
    with open_direct(url, token_file) as runtime:

        def removed(thing: int | str | Place) -> str | None:
            if interactive and not click.confirm(f"Remove {shown(str(thing))}?", err=True):
                return None
            if isinstance(thing, Place):
                return _remove_file(runtime, thing.path, force, recursive, outright, verbose)
            return _remove_process(runtime, thing, force)

        return each(meant, removed)


def _meant(context: click.Context, text: str, files: bool) -> int | str | Place:
    """files: only those can be meant. Raises BadParameter."""
    if files or _is_path(text):
        return Place(FilePath().convert(text, None, context), True)
    try:
        return Handle().convert(text, None, context)
    except click.BadParameter as error:
        hint = f"a file of this name is written {shown(f':{text}')}"
        raise click.BadParameter(f"{error.message}; {hint}", context) from None


def _remove_process(runtime: Direct, handle: int | str, force: bool) -> str | None:
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    try:
        if force:
            runtime.ask(m.Kill(pid=handle, signal="SIGKILL"), m.Killed)
        runtime.ask(m.Remove(pid=handle), m.Removed)
    except RequestFailed as error:
        if error.code == "unknown-process":
            if force:
                return None
            hint = f"a file of this name is written {shown(f':{handle}')}"
            raise RequestFailed(error.message, code=error.code, hint=hint) from None
        if error.code == "still-running":
            raise RequestFailed(
                f"process {handle} runs", hint=f"`mhnos-runtime rm -f {handle}` kills it first"
            ) from None
        raise
    return str(handle)


def _remove_file(
    runtime: Direct, path: str, force: bool, recursive: bool, outright: bool, verbose: bool
) -> str | None:
    """What is said of it. Raises RequestFailed."""
    from mhnos_runtime.cli.looking import change, hint_of
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    message = m.RemoveFile(path=path, recursive=recursive, outright=outright)
    try:
        removed = change(runtime, message, m.FileRemoved, path)
    except RequestFailed as error:
        if force and error.code == "not-found":
            return None
        if error.code == "not-empty":
            hint = f"`mhnos-runtime rm -r {shown(f':{path}')}` removes it with what is in it"
            raise RequestFailed(error.message, code=error.code, hint=hint) from None
        error.hint = hint_of(error, path)
        raise
    if not verbose:
        return None
    back = f"  (mhnos-runtime trash restore {shown(removed.trash)})" if removed.trash else ""
    return f"removed {shown(removed.path)}{back}"
