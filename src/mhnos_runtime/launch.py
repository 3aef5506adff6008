"""The launch plan and what becomes of it: what the supervisor is told, what it answers, and nothing else.

Plain data that travels as JSON between server and supervisor. Knows no policy, no event loop and no client.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

from mhnos_runtime.errors import Unavailable

#: Of all that server and supervisor tell each other. It changes with any of it: after an installation without
#: a reload, the next server is of another version than the supervisor.
CHANNEL_VERSION = 1

STDOUT = 0
STDERR = 1

#: Code of the error for a plan that the operator's policy forbids.
FORBIDDEN_PLAN = "forbidden-plan"
#: Number of the first descriptor that a program is handed: above all those that its set-up uses itself.
FIRST_HANDED = 100
#: Descriptors that one program may be handed; with those that a start needs they fit into one message.
MAX_HANDED = 24


@dataclass(frozen=True, slots=True)
class Holder:
    """What makes namespaces and keeps them until it is killed.

    program and options: bubblewrap's. files: (path inside, text), made inside. command: what it runs, which
    has to echo its input: that is how it says that everything is in place. network: whether the network
    namespace is the one that all holders of this supervisor with the same options for it share.
    """

    program: str
    options: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ("cat",)
    network: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Holder:
        return cls(**{name: _frozen(value) for name, value in data.items()})


@dataclass(frozen=True, slots=True)
class Landlock:
    """A ruleset as landlock(7) takes it: bit sets, and (path, allowed access) for what is beneath a path.

    own_terminal, private_tmp: the access to what has a name at the start only: the process's terminal, where
    it has one, and a folder for its temporary files, which the supervisor makes where this is not 0.
    own_folders: like rules, for folders in places of everybody's: made if they are missing, and left out if
    they are another user's.
    """

    handled_fs: int
    handled_net: int
    scoped: int
    rules: tuple[tuple[str, int], ...] = ()
    own_terminal: int = 0
    private_tmp: int = 0
    own_folders: tuple[tuple[str, int], ...] = ()


#: cgroup v2, where one group has all controllers: memory and pids, and cpu too.
UNIFIED = "unified"
UNIFIED_CPU = "unified+cpu"


def holds(hierarchy: str, controller: str) -> bool:
    """Whether groups of this hierarchy limit what the controller (memory, pids, cpu) stands for."""
    if hierarchy == UNIFIED:
        return controller in ("memory", "pids")
    return hierarchy in (controller, UNIFIED_CPU)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on the whole tree, 0 for none. cgroups: (hierarchy, directory in which a group for the process
    is made); a hierarchy of cgroup v1 has its controller's name, those of v2 are UNIFIED and UNIFIED_CPU.
    What no hierarchy holds is watched, see `watched`."""

    memory_bytes: int = 0
    tasks: int = 0
    cpu_percent: int = 0
    cgroups: tuple[tuple[str, str], ...] = ()

    def watched(self) -> bool:
        """Whether the supervisor has to look at the tree's use itself, from time to time."""
        wanted = {"memory": self.memory_bytes, "pids": self.tasks}
        return any(limit and not self.held(controller) for controller, limit in wanted.items())

    def held(self, controller: str) -> bool:
        """Whether a control group enforces this one."""
        return any(holds(hierarchy, controller) for hierarchy, _directory in self.cgroups)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What is done to a child before it executes the program, in this order.

    limits: joined first. user: (uid, gid), None to stay who one is. holder: whose namespaces are entered;
    then directory is the working directory inside, and the terminal is made inside. no_new_privs, landlock,
    seccomp: as prctl(2), landlock(7) and seccomp(2) have them; seccomp is a BPF program in base64.
    """

    user: tuple[int, int] | None = None
    holder: Holder | None = None
    directory: str = ""
    no_new_privs: bool = False
    landlock: Landlock | None = None
    seccomp: str = ""
    limits: Limits = Limits()

    def to_dict(self) -> dict[str, Any]:
        inner = {"holder": self.holder, "landlock": self.landlock, "limits": self.limits}
        plain = {name: None if value is None else _shallow(value) for name, value in inner.items()}
        return {**_shallow(self), **plain}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Confinement:
        user, holder, landlock, limits = (data[name] for name in ("user", "holder", "landlock", "limits"))
        return cls(
            **{
                **data,
                "user": None if user is None else (user[0], user[1]),
                "holder": None if holder is None else Holder.from_dict(holder),
                "landlock": None
                if landlock is None
                else Landlock(**{k: _frozen(v) for k, v in landlock.items()}),
                "limits": Limits(**{k: _frozen(v) for k, v in limits.items()}),
            }
        )


def _shallow(value: Any) -> dict[str, Any]:
    """As a dictionary; what is inside stays as it is, unlike with asdict, which copies it."""
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be narrower than the operator's policy; None, and for a limit 0 too: as the policy says."""

    network: str | None = None
    memory_bytes: int | None = None
    tasks: int | None = None
    cpu_percent: int | None = None
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """All that a server has to say about what a program is kept from; the rest is the operator's.

    cwd: the working directory as a workspace path, of use where the program has namespaces. engines: folders
    of installed engines, which it may read.
    """

    wish: Wish = Wish()
    cwd: str = "/"
    engines: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Choice:
        return cls(Wish(**data["wish"]), data["cwd"], _frozen(data["engines"]))


#: What of a plan follows from its choice and the operator's policy, and is never taken from a server.
DECIDED = ("confine", "rlimits")


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Exactly what to execute.

    argv: the program's absolute path first. env: the whole environment. pty: (cols, rows), or None for pipes.
    retention_bytes: how much output the log keeps. stall_ms: how long an unread viewer may hold the process
    up. watched: whether there is a viewer from the first byte on, for whom the log waits like that.
    timeout_ms: wall time until it is ended, 0 for none. escalation: what an ending signal is followed by, as
    (milliseconds after it, signal number). choice: what the server has chosen of what is allowed; rlimits, as
    (resource number, soft, hard), and confine, what the child is kept from, follow from it, see
    `sandbox.Allowed`. handed: how many descriptors come with the plan and stay open in the program, numbered
    from FIRST_HANDED on. control: whether it also gets, as the next number, a socket whose other end every
    server gets. facts: the server's own facts about the process, which the supervisor stores and hands to
    the next server unread.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    pty: tuple[int, int] | None = None
    retention_bytes: int = 1 << 20
    stall_ms: int = 10_000
    watched: bool = False
    timeout_ms: int = 0
    escalation: tuple[tuple[int, int], ...] = ((5_000, int(signal.SIGKILL)),)
    rlimits: tuple[tuple[int, int, int], ...] = ()
    confine: Confinement = Confinement()
    choice: Choice = Choice()
    handed: int = 0
    control: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def after_start(self) -> LaunchPlan:
        """What is still needed once its child has it: the rest would be most of what a process costs."""
        return replace(self, env={}, confine=Confinement(limits=self.confine.limits), choice=Choice())

    def to_dict(self) -> dict[str, Any]:
        return {**_shallow(self), "confine": self.confine.to_dict(), "choice": self.choice.to_dict()}

    def to_request(self) -> dict[str, Any]:
        """What a server sends: all but what is not its to say."""
        return {name: value for name, value in self.to_dict().items() if name not in DECIDED}

    @classmethod
    def from_request(cls, data: dict[str, Any]) -> LaunchPlan:
        """What `to_request` made."""
        return cls.from_dict({**data, "confine": Confinement().to_dict(), "rlimits": ()})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LaunchPlan:
        pty = data["pty"]
        return cls(
            **{
                **data,
                "argv": tuple(data["argv"]),
                "pty": None if pty is None else (pty[0], pty[1]),
                "escalation": tuple((step[0], step[1]) for step in data["escalation"]),
                "rlimits": tuple((row[0], row[1], row[2]) for row in data["rlimits"]),
                "confine": Confinement.from_dict(data["confine"]),
                "choice": Choice.from_dict(data["choice"]),
            }
        )


class StartDescriptors(NamedTuple):
    """What comes with a plan: the working directory, and what the program is handed. folder: -1 where it did
    not come."""

    folder: int
    handed: tuple[int, ...] = ()

    def sent(self) -> list[int]:
        """In the order in which they travel."""
        return [self.folder, *self.handed]

    @classmethod
    def received(cls, descriptors: Sequence[int]) -> StartDescriptors:
        """What `sent` sent; some may be missing."""
        return cls(descriptors[0], tuple(descriptors[1:])) if descriptors else cls(-1)


class ProcessDescriptors(NamedTuple):
    """What a server gets of a process; -1 for what there is not. input: open for writing, of a terminal also
    for its size. control: what the program tells of itself."""

    log: int
    input: int = -1
    control: int = -1

    def sent(self) -> list[int]:
        """In the order in which they travel."""
        return [fd for fd in self if fd >= 0]

    @classmethod
    def received(cls, descriptors: Sequence[int], control: bool) -> ProcessDescriptors:
        """What `sent` sent. control: as the record says; the input may have been closed since then."""
        came = list(descriptors)
        control_fd = came.pop() if control and came else -1
        log, input_, *_ = [*came, -1, -1]
        return cls(log, input_, control_fd)


#: Why a process ended, as an exit record has it.
REASONS = ("exit", "signal", "timeout", "memory", "killed", "idle", "lost")


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What happened to a process, and how it is known.

    code and signal: exactly one is set unless reason is "lost". runtime_ms: wall time. cpu_ms and
    max_rss_bytes come from the kernel's account of the process and of the children that it waited for. bytes:
    written in all.
    """

    code: int | None
    signal: str | None
    reason: str
    evidence: str
    runtime_ms: int | None
    cpu_ms: int | None
    max_rss_bytes: int | None
    bytes: int
    end_time_ms: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ExitRecord:
        return cls(**{f.name: data[f.name] for f in fields(cls)})


class OtherVersion(Unavailable):
    """Server and supervisor would not understand each other."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the supervisor says to each server first.

    spawned: processes that were started so far. allowed: see sandbox.Allowed. settings: the operator's, see
    config.Settings.to_json. token: what the last server knew of it. path, node, no_node: the PATH of
    processes, the Node.js there is, or why there is none. listeners: descriptors of the listening sockets.
    """

    server_id: str
    spawned: int
    allowed: dict[str, Any]
    settings: str
    token: dict[str, Any] | None
    path: str
    node: str
    no_node: str
    listeners: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """With the version of who says it, which may have it from a supervisor of another one."""
        return {"version": CHANNEL_VERSION, **_shallow(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Hello:
        """Fields beside its own are left out. Raises OtherVersion."""
        version = data.get("version")
        if version != CHANNEL_VERSION:
            raise OtherVersion(
                f"the supervisor speaks version {version!r} of the channel, this server {CHANNEL_VERSION}",
                hint="mhnos-runtime reload; where that is refused, stop the runtime and start it again",
            )
        return cls(**{each.name: _frozen(data[each.name]) for each in fields(cls)})


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process as the supervisor knows it; what a new server starts from.

    pid is the runtime's own; os_pid the kernel's. start_time_ms is epoch. facts are the server's, see
    LaunchPlan. stdin_open, control: which of ProcessDescriptors come with it, beside the log's.
    """

    pid: int
    os_pid: int
    start_time_ms: int
    pty: tuple[int, int] | None
    facts: dict[str, Any]
    stdin_open: bool = True
    exit: ExitRecord | None = None
    control: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ProcessRecord:
        pty, ended = data["pty"], data["exit"]
        return cls(
            **{
                **data,
                "pty": None if pty is None else (pty[0], pty[1]),
                "exit": None if ended is None else ExitRecord.from_dict(ended),
            }
        )
