"""`ls`: what is in the workspace. Knows how names and rows look, not how they are obtained."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.names import columns, painted, raw, shown
from mhnos_runtime.cli.places import FilePath, last_name
from mhnos_runtime.cli.target import open_direct, target_options

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.wire.messages import FileInfo

_TYPES = {"file": "-", "directory": "d", "link": "l", "other": "?"}
#: Behind a name, with -F, as ls(1): these are most of them.
_MARKS = {"directory": "/", "link": "@"}
_RECENT_S = 182 * 24 * 3600  # ls(1): an older file's time is shown with its year


class Manner(NamedTuple):
    """How it is to be shown; as ls(1) has these."""

    long: bool
    hidden: bool
    human: bool
    one: bool
    itself: bool
    recursive: bool
    marked: bool
    by_time: bool
    by_size: bool
    reverse: bool


class Shown(NamedTuple):
    """One path that was asked for. inside: what is in it, None for what is no directory."""

    name: str
    file: FileInfo
    inside: list[FileInfo] | None


@click.command(short_help="List files of the workspace.", context_settings={"help_option_names": ["--help"]})
@click.argument("paths", type=FilePath(), nargs=-1, metavar="[PATH...]")
@click.option("-l", "long", is_flag=True, help="With mode, size and time.")
@click.option("-a", "-A", "--all", "hidden", is_flag=True, help="Also names that begin with a dot.")
@click.option("-h", "--human-readable", "human", is_flag=True, help="With -l: sizes such as 1.2 MiB.")
@click.option("-1", "one", is_flag=True, help="One name a line, as where the output is no terminal.")
@click.option("-d", "--directory", "itself", is_flag=True, help="Directories, not what is in them.")
@click.option("-R", "--recursive", is_flag=True, help="Also what is in the directories below.")
@click.option("-F", "--classify", "marked", is_flag=True, help="A mark behind names: / @ *.")
@click.option("-t", "by_time", is_flag=True, help="The newest first.")
@click.option("-S", "by_size", is_flag=True, help="The largest first.")
@click.option("-r", "--reverse", is_flag=True, help="The other way round.")
@click.option("--json", "json_", is_flag=True, help="As JSON, with every field.")
@target_options
def ls(url: str | None, token_file: str | None, paths: tuple[str, ...], json_: bool, **manner: bool) -> int:
    """List what is in directories of the workspace, by name; without PATH what is at its top. A path begins
    at the top: `src` is `/src`. The exit code is that of ls(1): 2 if a path could not be listed.

    \b
    Examples:
      mhnos-runtime ls
      mhnos-runtime ls -la src
      mhnos-runtime ls -lt :/logs
      mhnos-runtime ls -RF src
      mhnos-runtime ls --json src
    """
    from mhnos_runtime.cli.looking import hint_of
    from mhnos_runtime.client.errors import RequestFailed

    how = Manner(**manner)
    code, got = exits.OK, []
    with open_direct(url, token_file) as runtime:
        for path in paths or ("/",):
            try:
                got.append(_looked(runtime, path, how))
            except RequestFailed as error:
                say.error(error.message, hint_of(error, path))
                code = exits.TROUBLE
                continue
            if how.recursive and not _add_below(runtime, got, how):
                code = code or exits.FAILED
    if json_:
        _as_json(got)
    else:
        _print(got, how, headed=len(paths) > 1 or how.recursive)
    return code


def _looked(runtime: Direct, path: str, how: Manner) -> Shown:
    from mhnos_runtime.cli.looking import look

    # As ls(1): a link to a directory is the directory, unless the row of the link itself is asked for.
    follow = not (how.long or how.itself) or path.endswith("/")
    file = look(runtime, path, follow)
    if file.kind != "directory" or how.itself:
        return Shown(path, file, None)
    return Shown(path, file, _sorted(_shown_in(runtime, path, how), how))


def _add_below(runtime: Direct, got: list[Shown], how: Manner) -> bool:
    """The directories below the last one, each before those that are in it; whether all could be listed."""
    from mhnos_runtime.client.errors import RequestFailed

    whole = True
    waiting = _folders(got[-1])
    while waiting:
        folder = waiting.pop()
        try:
            if folder.opaque:
                raise RequestFailed(f"Not listed: {folder.path}: its name is not UTF-8")
            inside = _sorted(_shown_in(runtime, folder.path, how), how)
        except RequestFailed as error:
            say.error(error.message, error.hint)
            whole = False
            continue
        got.append(Shown(folder.path, folder, inside))
        waiting += _folders(got[-1])
    return whole


def _folders(each: Shown) -> list[FileInfo]:
    """In it, the first one last. Links are not followed."""
    return [file for file in reversed(each.inside or ()) if file.kind == "directory"]


def _shown_in(runtime: Direct, path: str, how: Manner) -> list[FileInfo]:
    from mhnos_runtime.cli.looking import listed

    return [each for each in listed(runtime, path) if how.hidden or not _name(each).startswith(".")]


def _sorted(files: list[FileInfo], how: Manner) -> list[FileInfo]:
    if how.by_time:
        files.sort(key=lambda each: -each.mtime)
    elif how.by_size:
        files.sort(key=lambda each: -each.size)
    return files[::-1] if how.reverse else files


def _name(file: FileInfo) -> str:
    return last_name(file.path) or "/"


def _as_json(got: Iterable[Shown]) -> None:
    import msgspec

    rows = [file for each in got for file in ([each.file] if each.inside is None else each.inside)]
    say.as_json(msgspec.to_builtins(rows))


def _print(got: Sequence[Shown], how: Manner, headed: bool) -> None:
    """Files first, then each directory; under its name, if there are several."""
    single = [(each.name.lstrip("/") or "/", each.file) for each in got if each.inside is None]
    _print_files(single, how)
    between = bool(single)
    for each in got:
        if each.inside is None:
            continue
        if headed:
            print(("\n" if between else "") + f"{_spelled(each.name)}:")
        between = True
        _print_files([(_name(file), file) for file in each.inside], how)


def _spelled(name: str) -> str:
    return shown(name) if sys.stdout.isatty() else raw(name)


def _print_files(named: list[tuple[str, FileInfo]], how: Manner) -> None:
    if how.long:
        for line in rows(named, how.human, time.time(), how.marked):
            print(line)
        return
    width = say.screen_columns(sys.stdout)
    if width is None or how.one:
        for name, file in named:
            print(painted(_spelled(name), file) + _mark(file, how.marked))
    else:
        cells = [(shown(name), file, _mark(file, how.marked)) for name, file in named]

        def cell(at: int) -> str:
            name, file, mark = cells[at]
            return painted(name, file) + mark

        for line in columns([name + mark for name, _, mark in cells], width, cell):
            print(line)


def _mark(file: FileInfo, marked: bool) -> str:
    """What kind of file it is, in one character; "" where that is not wanted."""
    if not marked:
        return ""
    return "*" if file.kind == "file" and file.mode & 0o111 else _MARKS.get(file.kind, "")


def rows(named: Sequence[tuple[str, FileInfo]], human: bool, now_s: float, marked: bool = False) -> list[str]:
    """As `ls -l` has them, without links' counts and owners, which a workspace has no use for."""
    sizes = [_size(file, human) for _, file in named]
    width = max(map(len, sizes), default=0)
    return [
        f"{_mode(file)} {size:>{width}} {_time(file.mtime / 1000, now_s)} {painted(shown(name), file)}"
        + (_mark(file, marked) if file.target is None else f" -> {shown(file.target)}")
        for (name, file), size in zip(named, sizes, strict=True)
    ]


def _mode(file: FileInfo) -> str:
    return _TYPES[file.kind] + stat.filemode(file.mode)[1:]


def _size(file: FileInfo, human: bool) -> str:
    if file.kind != "file":
        return "-"
    return say.size(file.size) if human else str(file.size)


def _time(moment_s: float, now_s: float) -> str:
    recent = now_s - _RECENT_S < moment_s <= now_s + 60
    try:
        return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.localtime(moment_s))
    except (OverflowError, ValueError, OSError):
        return f"{moment_s:12.0f}"
