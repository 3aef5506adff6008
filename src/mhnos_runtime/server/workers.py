"""workerd's configs in a workspace: where a given one is, and where a generated one goes. Knows files."""

from __future__ import annotations

import fcntl
import os
import posixpath
from dataclasses import dataclass
from typing import Any

import msgspec

from mhnos_runtime.errors import InvalidRequest, MhnosError, NotFound
from mhnos_runtime.files import transfer
from mhnos_runtime.files.confine import Steps, Workspace
from mhnos_runtime.process import workerd
from mhnos_runtime.process.workerd import SOCKET, is_script
from mhnos_runtime.sandbox import Policy
from mhnos_runtime.server.ports import Handed
from mhnos_runtime.wire import messages as m

__all__ = ["SOCKET", "Script", "config_path", "generate", "is_script", "place", "write_new"]


#: Of a worker's options as JSON: as much as command, arguments and environment may have. Each byte becomes up
#: to four in the config, and each module a path to be looked up.
MAX_OPTIONS_BYTES = 160 << 10


def config_path(home: str, path: str, cwd: str) -> str:
    """How workerd is to be told of a config: relative to its folder where that is possible, since it shows
    paths in its errors as they were given. path: in the workspace."""
    if cwd == "/" or path.startswith(cwd + "/"):
        return posixpath.relpath(path, cwd)
    return home + path


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be run. home: the workspace as workerd sees it. command: as the client names it, relative to
    cwd."""

    workspace: Workspace
    home: str
    command: str
    cwd: str
    asked: m.WorkerOptions | None
    policy: Policy


def generate(script: Script, kept_in: str | None = None) -> str:
    """The config for a script. kept_in: the folder of the workspace that it will lie in; None: nowhere.

    Raises InvalidRequest, NotFound and Refused for a script or module that cannot be taken.
    """
    if not is_script(script.command):
        raise InvalidRequest(f"{script.command!r} is no worker script; expected a .js or .mjs file")
    options, steps = _options(script.asked or m.WorkerOptions(), script.policy), Steps()
    path = _in_workspace(script.workspace, script.command, script.cwd, steps)
    folder = posixpath.dirname(path)
    for name in options.modules:
        _in_workspace(script.workspace, name, folder, steps)
    if kept_in is None:
        seen = posixpath.join(script.home + folder, "")
    else:
        below = posixpath.relpath(folder, kept_in)
        seen = "" if below == "." else below + "/"
    return workerd.config(posixpath.basename(path), seen, options)


def place(script: Script, handed: Handed, dry: bool) -> str:
    """Generate a config, and return its path for workerd: of a file in the workspace where the client wants
    to keep it, else of a file in memory, which the process is handed. dry: keep nothing."""
    asked = script.asked
    if asked is not None and asked.keep is not None:
        path = script.workspace.normalise(asked.keep, script.cwd)
        text = generate(script, posixpath.dirname(path))
        if not dry and not write_new(script.workspace, path, text):
            raise InvalidRequest(f"{path} is there already", hint="run it as it is, or remove it")
        return config_path(script.home, path, script.cwd)
    return f"/proc/self/fd/{handed.add(_in_memory(generate(script)))}"


def write_new(workspace: Workspace, path: str, text: str) -> bool:
    """Write a file of the workspace, unless there is something already. Raises MhnosError."""
    try:
        workspace.real_path(path)
    except NotFound:
        done = transfer.push(workspace, [transfer.PushEntry(path, "file", [text.encode()], None)])
        if done.errors:
            raise MhnosError(done.errors[0][1], code="start-failed") from None
        return True
    return False


def _in_workspace(workspace: Workspace, path: str, base: str, steps: Steps) -> str:
    """The real path of a file as a path in the workspace. Raises NotFound, Refused."""
    return workspace.real_path(path, base, steps).removeprefix(os.path.realpath(workspace.root))


def _options(asked: m.WorkerOptions, policy: Policy) -> workerd.Options:
    """What the client wants, as far as the policy lets it out. Raises InvalidRequest."""
    size = len(msgspec.json.encode(asked))
    if size > MAX_OPTIONS_BYTES:
        raise InvalidRequest(
            f"worker: {size} bytes; at most {MAX_OPTIONS_BYTES}",
            code="too-large",
            hint="write a config, and name it as the command",
        )
    inside = policy.network != "host"
    try:
        bindings: dict[str, Any] = {
            name: msgspec.json.decode(value) for name, value in asked.bindings.items()
        }
    except (ValueError, RecursionError):
        raise InvalidRequest("worker.bindings: nested too deeply, or not JSON") from None
    return workerd.Options(
        bindings=bindings,
        environment=tuple(asked.environment),
        modules=tuple(asked.modules),
        compatibility_date=asked.compatibility_date or workerd.COMPATIBILITY_DATE,
        compatibility_flags=tuple(asked.compatibility_flags),
        heap_mb=asked.heap_mb,
        outbound="none" if inside else asked.outbound,
    )


def _in_memory(text: str) -> int:
    """Sealed, as the supervisor wants what a program is handed."""
    fd = os.memfd_create("config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd
