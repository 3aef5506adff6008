"""`edit`: a file of the workspace in an editor of this machine. Knows a private copy and a version; the
editor's own files are its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.places import FilePath, folded, last_name
from mhnos_runtime.cli.target import open_direct, target_options
from mhnos_runtime.errors import MhnosError

if TYPE_CHECKING:
    from mhnos_runtime.client.discovery import Target
    from mhnos_runtime.wire.messages import FileInfo

_FALLBACKS = ("sensible-editor", "editor", "vi", "nano")
_PIECE_BYTES = 256 * 1024
_LONGEST_NAME = 200  # of the copy: editors put something before and behind it


@click.command(short_help="Edit a file of the workspace with the editor of this machine.")
@click.argument("path", type=FilePath())
@target_options
def edit(url: str | None, token_file: str | None, path: str) -> int:
    """Open a private copy of a file in $VISUAL, or $EDITOR, and write it back when the editor has ended, if
    it was changed. A file that is not there is made.

    Nobody's work is lost: if somebody else has changed the file meanwhile, or if it cannot be written, it
    stays as it is, and the edited copy is kept. An editor that ends with an error writes nothing.

    \b
    Examples:
      mhnos-runtime edit src/main.py
      EDITOR='code --wait' mhnos-runtime edit README.md
    """
    from mhnos_runtime.cli.looking import found
    from mhnos_runtime.client.discovery import discover

    target, editor = discover(url, token_file), _editor()
    with open_direct(url, token_file) as runtime:
        there = found(runtime, path)
    if there is not None and there.kind != "file":
        raise MhnosError(f"{path} is no file that could be edited: {there.kind}")
    folder = tempfile.mkdtemp(prefix="mhnos-edit-")
    copy = os.path.join(folder, _copy_name(path))
    kept = False
    try:
        _fetch(target, path, copy, there)
        before = _digest(copy)
        code = _run(editor, copy)
        changed = _digest(copy) not in (None, before)
        if code:
            say.error(f"the editor ended with {code}; nothing was written")
            kept = changed and _keep(copy)
            return exits.FAILED
        if not changed:
            say.status(f"{path} was not changed")
            return exits.OK
        kept = True
        _write_back(target, path, copy, there)
        kept = False
        return exits.OK
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _editor() -> str:
    """A command of the shell, as for git. Raises MhnosError."""
    for variable in ("VISUAL", "EDITOR"):
        if chosen := os.environ.get(variable, "").strip():
            return chosen
    for program in _FALLBACKS:
        if shutil.which(program):
            return program
    raise MhnosError("there is no editor", hint="EDITOR=PROGRAM names one")


def _copy_name(path: str) -> str:
    """The same name, so that the editor knows what kind of file it is."""
    name = last_name(folded(path))
    stem, dot, suffix = name.rpartition(".")
    return f"{stem[: _LONGEST_NAME // 4]}{dot}{suffix}" if len(name.encode()) > _LONGEST_NAME else name


def _fetch(target: Target, path: str, copy: str, there: FileInfo | None) -> None:
    """The file as it was looked at. Raises ClientError."""
    from mhnos_runtime.client.contents import Contents

    fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        if there is not None:
            with Contents(target) as contents, contents.read(path, version=there.version) as download:
                file.writelines(download)


def _digest(copy: str) -> bytes | None:
    """Of what is at the path, where the editor may have put another file; None for nothing."""
    try:
        with open(copy, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return None


def _run(editor: str, copy: str) -> int:
    """Its exit code. Ctrl-C and Ctrl-\\ are the editor's meanwhile."""
    # The shell around the editor stays: it would be ended by keys that the editor handles.
    script = f'trap : INT QUIT; {editor} "$@"'
    with subprocess.Popen(["sh", "-c", script, editor, copy]) as child, _signals_ignored():
        return child.wait()


@contextmanager
def _signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_back(target: Target, path: str, copy: str, there: FileInfo | None) -> None:
    """Where the file is as it was. Raises MhnosError, with the copy's place and the ways on."""
    from mhnos_runtime.client.contents import Contents

    try:
        with Contents(target) as contents, open(copy, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            pieces = iter(lambda: file.read(_PIECE_BYTES), b"")
            version = there.version if there else None
            contents.write(path, pieces, size=size, version=version, absent=there is None)
    except MhnosError as error:
        raise _not_written(error, path, copy) from None
    except KeyboardInterrupt:
        _keep(copy)
        raise


def _not_written(error: MhnosError, path: str, copy: str) -> MhnosError:
    import shlex

    here, there = shlex.quote(copy), shlex.quote(f":{path}")
    if error.code in ("changed", "already-exists"):
        message = f"{path} was changed by somebody else meanwhile, and is as they left it"
        hint = (
            f"your copy is {copy}\n  see what is different:  mhnos-runtime cp {there} - | diff - {here}\n"
            f"  replace their file:     mhnos-runtime cp {here} {there}"
        )
    else:
        message = f"{path} was not written: {error.message}"
        hint = f"your copy is {copy}\n  write it later:  mhnos-runtime cp {here} {there}"
    return MhnosError(message, code=error.code, hint=hint)


def _keep(copy: str) -> bool:
    say.error("the edited copy is kept", copy)
    return True
