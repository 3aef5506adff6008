"""`trash`: what was removed from the workspace, and how it is had back."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.names import shown
from mhnos_runtime.cli.places import FilePath, folded, inside
from mhnos_runtime.cli.target import open_direct, target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.wire.messages import TrashItem

HEAD = ("ID", "PATH", "SIZE", "REMOVED", "KEPT")
PATH = HEAD.index("PATH")  # the column that shrinks where the screen is narrow
_ALL_FROM_COLUMNS = 60  # on a narrower screen nothing would be left of the path
_ID = re.compile(r"[0-9a-f]{16}\Z")


@click.group(invoke_without_command=True, short_help="List, restore and empty what was removed.")
@click.pass_context
def trash(context: click.Context) -> None:
    """What `rm` removes, and what `mv` and `cp` replace by another file of the workspace, is kept in the
    trash for some days. Without a further verb it is listed.

    \b
    Examples:
      mhnos-runtime trash list
      mhnos-runtime trash restore src/main.py
      mhnos-runtime trash empty
    """
    if context.invoked_subcommand is None:
        given = context.find_root().params
        context.invoke(list_, url=given.get("url"), token_file=given.get("token_file"))


@trash.command("list")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--json", "json_", is_flag=True, help="As JSON, with every field.")
@target_options
def list_(url: str | None, token_file: str | None, quiet: bool, json_: bool) -> None:
    """List what can be had back, what was removed last first.

    \b
    Examples:
      mhnos-runtime trash list
      mhnos-runtime trash list --json
    """
    with open_direct(url, token_file) as runtime:
        items = list(_items(runtime))
    if json_:
        import msgspec

        say.as_json(msgspec.to_builtins(items))
    elif quiet:
        print("".join(f"{shown(item.id)}\n" for item in items), end="")
    else:
        width = say.screen_columns(sys.stdout)
        count = len(HEAD) if width is None or width >= _ALL_FROM_COLUMNS else PATH + 1
        say.table(HEAD[:count], [cells(item, time.time())[:count] for item in items], shrink=PATH)


def cells(item: TrashItem, now_s: float) -> tuple[str, ...]:
    """One row of the table."""
    path = shown(item.path) + ("/" if item.kind == "directory" else "")
    return (
        item.id,
        path,
        say.size(item.size) if item.kind == "file" else "-",
        f"{say.duration(now_s - item.removed / 1000)} ago",
        f"for {say.duration(item.expires / 1000 - now_s)}",
    )


def _items(runtime: Direct) -> Iterator[TrashItem]:
    from mhnos_runtime import bounds
    from mhnos_runtime.wire import messages as m

    before: str | None = None
    while True:
        page = runtime.ask(m.ListTrash(before=before, max=bounds.LISTED_FILES), m.TrashList)
        yield from page.items
        before = page.next
        if before is None:
            return


@trash.command()
@click.argument("items", nargs=-1, required=True, metavar="ID|PATH...")
@click.option("--to", type=FilePath(), metavar="PATH", help="Another path than the one where it was.")
@target_options
def restore(url: str | None, token_file: str | None, items: tuple[str, ...], to: str | None) -> int:
    """Put removed files back where they were. Of several that had the same PATH, the one that was removed
    last is meant; an id of `trash list` means any of them. Nothing may stand there.

    \b
    Examples:
      mhnos-runtime trash restore src/main.py
      mhnos-runtime trash restore 5f0c2a9e5f0c2a9e --to src/old.py
    """
    from mhnos_runtime.cli.looking import PATIENCE_S
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.wire import messages as m

    if to is not None and len(items) > 1:
        raise click.UsageError("--to is for one item: two cannot have the same path")
    code = exits.OK
    with open_direct(url, token_file) as runtime:
        for text in items:
            try:
                restored = runtime.ask(
                    m.RestoreFile(item=_meant(runtime, text), to=to), m.FileRestored, PATIENCE_S
                )
                print(shown(restored.file.path), flush=True)
            except RequestFailed as error:
                hint = error.hint
                if error.code == "already-exists" and to is None:
                    hint = f"`mhnos-runtime trash restore {shown(text)} --to PATH` gives it another path"
                say.error(error.message, hint)
                code = exits.FAILED
    return code


def _meant(runtime: Direct, text: str) -> str:
    """The id of what is meant by an id or a path. Raises RequestFailed."""
    from mhnos_runtime.client.errors import RequestFailed

    if _ID.match(text):
        return text
    path = folded(inside(text))
    for item in _items(runtime):
        if item.path == path:
            return item.id
    hint = "`mhnos-runtime trash list` shows what is"
    raise RequestFailed(f"Not in the trash: {path}", code="not-found", hint=hint)


@trash.command()
@click.argument("items", nargs=-1, metavar="[ID|PATH...]")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@target_options
def empty(url: str | None, token_file: str | None, items: tuple[str, ...], force: bool) -> int:
    """Remove what is in the trash for ever; only these items, where some are named. On a terminal it asks
    first.

    \b
    Examples:
      mhnos-runtime trash empty
      mhnos-runtime trash empty -f big.iso
    """
    from mhnos_runtime import bounds
    from mhnos_runtime.cli.looking import PATIENCE_S
    from mhnos_runtime.wire import messages as m

    with open_direct(url, token_file) as runtime:
        ids = [_meant(runtime, text) for text in items] or [item.id for item in _items(runtime)]
        if not ids:
            print("the trash is empty")
            return exits.OK
        if not (force or _confirmed(len(ids))):
            return exits.FAILED
        removed = 0
        for at in range(0, len(ids), bounds.LISTED_FILES):
            message = m.EmptyTrash(items=ids[at : at + bounds.LISTED_FILES])
            removed += runtime.ask(message, m.TrashEmptied, PATIENCE_S).items
    print(f"removed {say.count(removed, 'item', 'items')} for ever")
    return exits.OK


def _confirmed(count: int) -> bool:
    so_many = say.count(count, "item", "items")
    if not sys.stdin.isatty():
        say.error(
            f"{so_many} would be removed for ever", "`mhnos-runtime trash empty -f` does so without asking"
        )
        return False
    return click.confirm(f"Remove {so_many} for ever?")
