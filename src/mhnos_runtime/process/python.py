"""The kind python, in the virtual environment of its folder. Knows what one looks like; reads no file."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from mhnos_runtime.errors import MhnosError, StartFailed
from mhnos_runtime.process.kind import Hooks, Kind, StartContext

PROGRAM = "python3"
#: Without it Python keeps what it prints into a pipe until 8 KiB have come together, or until it ends.
UNBUFFERED = (("PYTHONUNBUFFERED", "1"),)
#: Folders that are looked for, the first one first.
_NAMES = (".venv", "venv")
#: A file that each virtual environment has (PEP 405), and a folder that is merely called so has not.
_MARKER = "pyvenv.cfg"
#: How many folders are searched from the working directory upwards; projects are not deeper, and each costs
#: system calls.
LEVELS = 32
_WAY_OUT = (
    f"make it anew (mhnos-runtime run shell {PROGRAM} -m venv --clear FOLDER), "
    "or use the machine's Python (-e VIRTUAL_ENV=)"
)


class _Python(Hooks):
    def variables(self, context: StartContext, given: Mapping[str, str], /) -> Mapping[str, str]:
        """As an activated environment has them. A client that gives a PATH has chosen its Python there."""
        if given.get("PATH"):
            return {}
        try:
            folder = _chosen(context, given["VIRTUAL_ENV"]) if "VIRTUAL_ENV" in given else nearest(context)
            if not folder:
                return {}
            context.program(f"{folder}/bin/{PROGRAM}")
        except MhnosError as error:
            # To pass over the environment would run the program with other packages, without a word.
            raise StartFailed(
                f"the virtual environment cannot be used: {error.message}", code=error.code, hint=_WAY_OUT
            ) from error
        return {"VIRTUAL_ENV": folder, "PATH": f"{folder}/bin:{context.path}"}


def _chosen(context: StartContext, folder: str) -> str:
    return posixpath.normpath(posixpath.join(context.home + context.cwd, folder)) if folder else ""


def nearest(context: StartContext) -> str:
    """The virtual environment of the working directory, or of the nearest folder above it in the workspace,
    as the process sees it; "" where there is none."""
    folder = context.real(".") or "/"
    for _ in range(LEVELS):
        for name in _NAMES:
            if context.has(posixpath.join(folder, name, _MARKER)):
                return context.home + posixpath.join(folder, name)
        if folder == "/":
            break
        folder = posixpath.dirname(folder)
    return ""


PYTHON = Kind("python", (PROGRAM, "{command}", "{args}"), env=UNBUFFERED, hooks=_Python())
