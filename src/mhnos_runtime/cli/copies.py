"""What a `cp` comes to: for each source what it is, and where it goes. Knows what stands at both ends; moves
no content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mhnos_runtime.cli.looking import found, hint_of, look
from mhnos_runtime.cli.places import Place, folded, last_name
from mhnos_runtime.errors import InvalidRequest, MhnosError, NotFound

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.wire.messages import FileInfo


class Step(NamedTuple):
    """One source. is_folder: what is copied is a directory, or goes as an archive. file: the source, where it
    is in the workspace. replaces: something stands there."""

    source: Place
    to: Place
    is_folder: bool
    file: FileInfo | None = None
    replaces: bool = False


def planned(runtime: Direct, sources: Sequence[Place], target: Place) -> list[Step | MhnosError | OSError]:
    """A step for each source, or why there is none. Raises MhnosError, OSError where the target is the
    reason."""
    into = _is_folder(runtime, target)
    if len(sources) > 1 and not into:
        into = _can_be_made(runtime, sources, target)
        if not into:
            raise _no_folder(target, "several sources go into a directory, which has to be there")
    steps: list[Step | MhnosError | OSError] = []
    for source in sources:
        try:
            steps.append(_step(runtime, source, target, into))
        except MhnosError as error:
            error.hint = hint_of(error, source.path)
            steps.append(error)
        except OSError as error:
            steps.append(error)
    return steps


def _step(runtime: Direct, source: Place, target: Place, into: bool) -> Step:
    # Inside the workspace links are copied as they are written, wherever they lead.
    file = look(runtime, source.path, follow=not target.inside) if source.inside else None
    if source.is_stream:
        return Step(source, target, is_folder=into or target.path.endswith("/"))
    is_folder = file.kind == "directory" if file else stat.S_ISDIR(_status(source).st_mode)
    if target.is_stream:
        return Step(source, target, is_folder, file)
    to, replaces = target, into
    if into and not (is_folder and source.is_content):
        to = target.within(_name(source))
        replaces = _stands(runtime, to)
    elif not into and target.path.endswith("/") and not is_folder:
        to = _in_new_folder(runtime, source, target)
    elif not into:
        replaces = _stands(runtime, to)
    if source.inside and to.inside and folded(source.path) == folded(to.path):
        raise InvalidRequest(f"{source} and {to} are the same")
    if is_folder and replaces and not (into and to == target) and not _is_folder(runtime, to):
        raise InvalidRequest(f"{to} is a file, and {source} is a directory", hint="remove or rename one")
    return Step(source, to, is_folder, file, replaces)


def _can_be_made(runtime: Direct, sources: Sequence[Place], target: Place) -> bool:
    """Whether it says that it is a directory, and what is sent has it made."""
    sent = target.inside and not any(source.inside for source in sources)
    return sent and target.path.endswith("/") and not _stands(runtime, target)


def _in_new_folder(runtime: Direct, source: Place, target: Place) -> Place:
    """A file that is sent has its directories made; others do not. Raises NotFound."""
    if source.inside or not target.inside or _stands(runtime, target):
        shorter = target._replace(path=target.path.rstrip("/"))
        raise _no_folder(target, f"without the slash at its end it becomes the name: {shorter}")
    return target.within(_name(source))


def _is_folder(runtime: Direct, place: Place) -> bool:
    """Whether it is there, and a directory."""
    if place.is_stream:
        return False
    if not place.inside:
        return os.path.isdir(place.path)
    there = found(runtime, place.path)
    return there is not None and there.kind == "directory"


def _stands(runtime: Direct, place: Place) -> bool:
    """Whether something is there."""
    return found(runtime, place.path) is not None if place.inside else os.path.exists(place.path)


def _name(source: Place) -> str:
    """What it is called in the directory that it goes to."""
    path = folded(source.path) if source.inside else os.path.abspath(source.path)
    return last_name(path)


def _status(source: Place) -> os.stat_result:
    """Raises OSError, NotFound."""
    try:
        return os.stat(source.path)
    except FileNotFoundError:
        if ":/" not in source.path and os.path.dirname(source.path):
            raise
        path = source.path.partition(":")[2] or f"/{source.path}"
        hint = f"a path of the workspace has a colon before it: :{path}"
        raise NotFound(f"No such file or directory: {source}", hint=hint) from None


def _no_folder(target: Place, hint: str) -> NotFound:
    return NotFound(f"No such directory: {target}", hint=hint)
