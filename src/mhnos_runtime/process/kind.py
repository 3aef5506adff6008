"""What a kind is: data, and hooks for what data cannot say. Knows no particular kind, no server and no files.

A hook sees the request and the context that it is given, and returns values: it starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mhnos_runtime.config import Settings
from mhnos_runtime.config.kinds import ReadySetting
from mhnos_runtime.process.facts import ProcessFacts
from mhnos_runtime.wire.messages import WorkerOptions

#: How the client's command is read. script: a path in the workspace, unless it begins with "-"; text: as it
#: is; shell: the name of a shell, or a command line for one.
Command = Literal["script", "text", "shell"]

#: What a terminal's programs get after SIGTERM, which an interactive shell ignores, and before SIGKILL.
HANG_UP_MS = 500


class StartContext(Protocol):
    """What a hook sees of one start. home: the workspace as the process sees it. cwd: its working directory,
    as a path in the workspace. path: the PATH of processes. network: of its sandbox. dry: nothing is written.

    Paths are those of the workspace; relative ones begin at `base`, or at cwd. All methods raise MhnosError.
    """

    @property
    def home(self) -> str: ...

    @property
    def cwd(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def network(self) -> str: ...

    @property
    def dry(self) -> bool: ...

    def real(self, path: str, base: str | None = None) -> str:
        """Where a file really is, links resolved. Raises NotFound, Refused."""

    def has(self, path: str) -> bool:
        """Whether there is a file. Of a deep folder not all parents can be looked at: then there is none.
        Raises Refused."""

    def normalise(self, path: str) -> str:
        """An absolute path without dots; no link is looked at."""

    def program(self, path: str) -> None:
        """Look whether the process could execute a program, by its path as the process sees it.

        Raises NotFound, Refused, and StartFailed (not-found, not-executable) for one that it does not see, or
        whose interpreter it does not see."""

    def write_new(self, path: str, text: str) -> bool:
        """Write a file, unless there is something already, or the start is dry."""

    def hand(self, text: str) -> int:
        """Hand the program a sealed file in memory; return its descriptor's number there."""


@dataclass(frozen=True, slots=True)
class Interpreted:
    """What a command means to its kind. kind: the form of it that runs. ports: numbers that are asked for by
    name."""

    kind: Kind
    args: tuple[str, ...]
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Script:
    """A command that names a file. real: where it is in the workspace, links resolved."""

    command: str
    real: str
    worker: WorkerOptions | None


class Hooks:
    """What a kind needs beyond its data. These do nothing; a kind overrides what it needs."""

    def check_allowed(self, settings: Settings) -> None:
        """Raises Refused where the operator has not allowed the kind."""

    def interpret(self, kind: Kind, _command: str, args: tuple[str, ...], /) -> Interpreted:
        """What the client's command means. Raises InvalidRequest."""
        return Interpreted(kind, args)

    def real(self, command: str, context: StartContext) -> str:
        """Where in the workspace the script is that a command names, links resolved. Raises NotFound,
        Refused."""
        return context.real(command)

    def program(self, script: Script, context: StartContext) -> tuple[str, tuple[str, ...]]:
        """The command of a script as the program takes it, and the sockets that this needs by name."""
        command = script.command
        return context.home + script.real if command.startswith("/") else command, ()

    def check(self, _command: str, _args: tuple[str, ...], _context: StartContext, /) -> None:
        """Raises MhnosError for what would fail later, and tell less."""

    def write_files(self, context: StartContext) -> None:
        """Write what has to be there before the program starts."""

    def variables(self, _context: StartContext, _given: Mapping[str, str], /) -> Mapping[str, str]:
        """What it is told of the workspace. given: the client's variables, which override these. Raises
        MhnosError."""
        return {}

    def environment(self, _running: ProcessFacts | None, /) -> Mapping[str, str]:
        """What it is told of the process of its kind that runs, where one runs at a time."""
        return {}


NO_HOOKS = Hooks()


@dataclass(frozen=True, slots=True)
class Kind:
    """argv: a template, see `process.template` for its placeholders.

    pty: whether it gets a terminal when the request does not say. env: a template too; a client unsets one of
    these with an empty value. piped_env: more of them, of a process without a terminal. hang_up_ms: see
    HANG_UP_MS; it is for terminals only. ready: how it is known that it serves; None: nobody looks.
    named_sockets: the client may name sockets that it is to be handed. events: it tells by `{control}` where
    it listens, and is ready when it does. grace_ms: what it needs to end in order, where that is more than
    what the operator gives. needed_memory_bytes: with less it does not start well. single: one at a time.
    early_exit: what to call an end with an error before it was ready. caches: folders of the workspace that
    it makes anew when they are gone, and that are not pulled. own_folders: see `sandbox.plan.Sandbox`.
    """

    name: str
    argv: tuple[str, ...]
    pty: bool = False
    command: Command = "script"
    env: tuple[tuple[str, str], ...] = ()
    piped_env: tuple[tuple[str, str], ...] = ()
    hang_up_ms: int = HANG_UP_MS
    limits: tuple[tuple[str, int], ...] = ()
    ready: ReadySetting | None = None
    named_sockets: bool = False
    events: bool = False
    grace_ms: int = 0
    needed_memory_bytes: int = 0
    single: bool = False
    early_exit: str = ""
    caches: tuple[str, ...] = ()
    own_folders: tuple[tuple[str, str], ...] = ()
    hooks: Hooks = NO_HOOKS

    @property
    def templates(self) -> tuple[str, ...]:
        """Every text in which placeholders may stand."""
        return (*self.argv, *(text for _name, text in (*self.env, *self.piped_env)))
