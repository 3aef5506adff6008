"""The kind shell: a shell, a script for one, or the words of a command. Knows no file."""

from __future__ import annotations

import posixpath
from contextlib import suppress

from mhnos_runtime.errors import InvalidRequest, NotFound, Refused
from mhnos_runtime.process import words
from mhnos_runtime.process.kind import Hooks, Kind, StartContext
from mhnos_runtime.process.python import UNBUFFERED


class _Shell(Hooks):
    def check(self, command: str, args: tuple[str, ...], context: StartContext, /) -> None:
        """Of a program in the workspace that needs a hidden one, a shell says only that something is
        missing."""
        path = posixpath.join(context.home + context.cwd, words.program(command, args) or "/")
        if path.startswith(context.home + "/"):
            with suppress(NotFound, Refused, InvalidRequest):  # the shell says it
                context.program(path)


#: On a terminal Python writes each line by itself, and in a pipeline there a buffer is much faster.
SHELL = Kind("shell", (), pty=True, command="shell", piped_env=UNBUFFERED, hang_up_ms=0, hooks=_Shell())
