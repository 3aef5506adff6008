"""How the settings that a runtime goes by differ from those that a start would find now: what a reload
applies, what takes a new start, and the variables that who asks for a reload brings along.

Knows settings and one file of the state directory, no runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mhnos_runtime.config.table import BY_NAME, SETTINGS, Settings, describe

#: Written by who asks for a reload, and taken away by it. A variable of a running program cannot be changed
#: from outside, but a service manager gives its new ones to the command that reloads.
VARIABLES_FILE = "reload.json"
_MAX_BYTES = 64 * 1024


class Change(NamedTuple):
    """name: of a setting, or kinds.NAME. old, new: as people read them. source: of the new value. reloads: a
    reload applies it."""

    name: str
    old: str
    new: str
    source: str
    reloads: bool


def changes(running: Settings, found: Settings) -> list[Change]:
    """What differs, in the order of the table; kinds last. What only clients read needs no reload."""
    old, new = ({row.name: row for row in describe(each)} for each in (running, found))
    ours = [each.name for each in SETTINGS if not each.of_client]
    differing = [name for name in ours if getattr(running, name) != getattr(found, name)]
    kinds = [{f"kinds.{kind.name}": kind for kind in each.kinds} for each in (running, found)]
    differing += [name for name in {**kinds[0], **kinds[1]} if kinds[0].get(name) != kinds[1].get(name)]
    return [
        Change(
            name,
            old[name].value if name in old else "",
            new[name].value if name in new else "",
            new[name].source if name in new else "default",
            name in BY_NAME and BY_NAME[name].reloads,
        )
        for name in differing
    ]


def applied(running: Settings, found: Settings) -> Settings:
    """What a runtime goes by after a reload."""
    names = [each.name for each in SETTINGS if each.reloads]
    sources = {**running.sources, **{name: found.source(name) for name in names}}
    return replace(running, **{name: getattr(found, name) for name in names}, sources=sources)


def bring(state_dir: Path, environ: Mapping[str, str]) -> None:
    """Leave the variables of settings that a reload applies for the reload that follows. Raises OSError."""
    variables = {each.env: environ[each.env] for each in SETTINGS if each.reloads and environ.get(each.env)}
    path = state_dir / VARIABLES_FILE
    path.unlink(missing_ok=True)
    if not variables:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        if os.geteuid() == 0:
            owner = state_dir.stat()
            os.fchown(fd, owner.st_uid, owner.st_gid)
        json.dump(variables, file)


def take(state_dir: Path) -> dict[str, str]:
    """What `bring` left, which is gone then; nothing where it is not the caller's own file."""
    path = state_dir / VARIABLES_FILE
    with contextlib.suppress(OSError, ValueError, AttributeError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as file:
            path.unlink()
            status = os.fstat(fd)
            own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if own and not status.st_mode & 0o022 and status.st_size <= _MAX_BYTES:
                return {str(name): str(value) for name, value in json.load(file).items()}
    return {}
