"""What the Tab key offers that only a runtime or its settings know. Silent and quick, whatever fails.

Knows how to ask; must not know what the verbs do with an answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from mhnos_runtime.cli import say
from mhnos_runtime.cli.target import open_direct

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct

TIMEOUT_S = 0.5  # a Tab key that takes longer feels broken
SHOWN_CHARACTERS = 60  # of a command beside a handle
MOST_PATHS = 1000  # a shell asks before it shows so many
#: Paths that need no quoting: the scripts of shells insert what they are given.
_PLAIN_PATH = re.compile(r"[\w@%+=:,./-]+\Z")
#: What names and pids are made of. Shells insert what they are given: a server could say `$(command)`.
_PLAIN_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
#: Kinds whose command is a file of the workspace.
_SCRIPTED = ("node", "python", "workerd")


def handles(ctx: click.Context, incomplete: str, ended: bool | None) -> list[CompletionItem]:
    """Names, then pids, with kind and command as help."""
    from mhnos_runtime.wire import messages as m

    try:
        with _ask(ctx) as runtime:
            rows = runtime.ask(m.List(all=ended is not False), m.ProcessList, TIMEOUT_S).processes
    except Exception:
        return []
    rows = [row for row in rows if ended is None or isinstance(row.exit, m.ExitInfo) is ended]
    taken = {word for value in ctx.params.values() if isinstance(value, tuple) for word in value}
    named = [(row.name, row) for row in reversed(rows) if isinstance(row.name, str)]
    found = {str(handle): row for handle, row in [*named, *((row.pid, row) for row in rows)]}
    found = {handle: row for handle, row in found.items() if _PLAIN_HANDLE.match(handle)}
    return [
        CompletionItem(handle, help=_about(row.type, row.command, row.args))
        for handle, row in found.items()
        if handle.startswith(incomplete) and not {row.name, row.pid} & taken
    ]


def _about(kind: str, command: str, args: list[str]) -> str:
    return say.printable(" ".join([kind, command, *args]).strip())[:SHOWN_CHARACTERS]


def kinds(incomplete: str) -> list[CompletionItem]:
    """Those of the runtime and those that the settings of this machine declare."""
    from mhnos_runtime.config import BUILT_IN_KINDS, load

    try:
        own = {kind.name: kind.description for kind in load()[0].kinds}
    except Exception:
        own = {}
    found = {**dict.fromkeys(BUILT_IN_KINDS, ""), **own}
    return [
        CompletionItem(kind, help=about or None)
        for kind, about in found.items()
        if kind.startswith(incomplete)
    ]


def paths(
    ctx: click.Context, param: click.Parameter, incomplete: str, folders_only: bool
) -> list[CompletionItem]:
    """Files and folders of the workspace; for what no file of it can be, nothing. A colon before a path
    stays."""
    if param.name == "command" and ctx.params.get("kind") not in _SCRIPTED:
        return []
    colon = ":" if incomplete.startswith(":") else ""
    typed, slash, start = incomplete.removeprefix(":").rpartition("/")
    inside = "" if folders_only or typed.startswith("/") else str(ctx.params.get("cwd") or "")
    try:
        with _ask(ctx) as runtime:
            found = _listed(runtime, f"/{inside}/{typed}", start, folders_only)
    except Exception:
        return []
    return [CompletionItem(f"{colon}{typed}{slash}{name}") for name in found]


def _listed(runtime: Direct, folder: str, start: str, folders_only: bool) -> list[str]:
    """Names that begin so, folders with a slash behind them; the first page of a large folder alone."""
    from mhnos_runtime import bounds
    from mhnos_runtime.wire import messages as m

    message = m.ListFiles(path=folder, after=_before(start), max=bounds.LISTED_FILES)
    found = []
    for file in runtime.ask(message, m.FileList, TIMEOUT_S).files:
        name = file.path.rpartition("/")[2]
        hidden = name.startswith(".") and not start.startswith(".")
        if not name.startswith(start) or hidden or _PLAIN_PATH.match(name) is None:
            continue
        if file.kind == "directory":
            found.append(f"{name}/")
        elif not folders_only:
            found.append(name)
    return found[:MOST_PATHS]


def _before(start: str) -> str | None:
    """A name directly before those that begin so: large folders are listed by name."""
    return start[:-1] or None if start else None


def _ask(ctx: click.Context) -> Direct:
    return open_direct(*_target(ctx), TIMEOUT_S)


def _target(ctx: click.Context) -> tuple[str | None, str | None]:
    root = ctx.find_root().params
    return ctx.params.get("url") or root.get("url"), ctx.params.get("token_file") or root.get("token_file")
