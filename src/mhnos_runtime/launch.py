"""Launch plans and records: the values that server and supervisor tell each other, as JSON.

Plain data. Knows no policy, no event loop and no client.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

from mhnos_runtime.errors import Unavailable

#: Of all that server and supervisor tell each other. It changes with any of it: after an installation without
#: a reload, the next server is of another version than the supervisor.
CHANNEL_VERSION = 3

STDOUT = 0
STDERR = 1

#: Code of the error for a plan that the operator's policy forbids.
FORBIDDEN_PLAN = "forbidden-plan"
#: Number of the first descriptor that a program is handed: above all that the set-up of a child uses.
FIRST_HANDED = 100
#: Descriptors that one program may be handed: together with those of a start they fit into one message.
MAX_HANDED = 24


@dataclass(frozen=True, slots=True)
class Holder:
    """A bubblewrap that makes namespaces and keeps them until it is killed.

    options: bubblewrap's. files: (path inside, text), made inside. command: what runs inside; it must echo
    its input, which shows that all is in place. network: options for the network namespace, which all holders
    of this supervisor with the same ones share; () for a namespace of its own.
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
    """A ruleset as landlock(7) takes it: bit sets, and (path, allowed access) for everything beneath a path.

    own_terminal, private_tmp: access to paths that are known only at the start: the process's terminal, and
    the folder for its temporary files, which the supervisor makes unless this is 0. own_folders: like rules,
    for folders in shared places such as /tmp: made if missing, left out if they are another user's.
    """

    handled_fs: int
    handled_net: int
    scoped: int
    rules: tuple[tuple[str, int], ...] = ()
    own_terminal: int = 0
    private_tmp: int = 0
    own_folders: tuple[tuple[str, int], ...] = ()


#: cgroup v2, where one group has all controllers: memory and pids, and in the second one also cpu.
UNIFIED = "unified"
UNIFIED_CPU = "unified+cpu"


def holds(hierarchy: str, controller: str) -> bool:
    """Whether groups of this hierarchy enforce the limits of a controller (memory, pids, cpu)."""
    if hierarchy == UNIFIED:
        return controller in ("memory", "pids")
    return hierarchy in (controller, UNIFIED_CPU)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on the whole tree, 0 for none. cgroups: (hierarchy, directory in which the process's group is
    made). A hierarchy of cgroup v1 has its controller's name; those of v2 are UNIFIED and UNIFIED_CPU. Limits
    that no hierarchy enforces are left to the watchdog, see `watched`."""

    memory_bytes: int = 0
    tasks: int = 0
    cpu_percent: int = 0
    cgroups: tuple[tuple[str, str], ...] = ()

    def watched(self) -> bool:
        """Whether the supervisor's watchdog has to measure the tree from time to time."""
        wanted = {"memory": self.memory_bytes, "pids": self.tasks}
        return any(limit and not self.held(controller) for controller, limit in wanted.items())

    def held(self, controller: str) -> bool:
        """Whether a control group enforces this one."""
        return any(holds(hierarchy, controller) for hierarchy, _directory in self.cgroups)


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a child is confined before it executes the program, in this order.

    limits: control groups that it joins. user: (uid, gid), None for no change. holder: whose namespaces it
    joins; `directory` is then the working directory inside, and the terminal is made inside. no_new_privs,
    landlock, seccomp: as in prctl(2), landlock(7) and seccomp(2); seccomp is a BPF program in base64.
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
    """As a dictionary with the values as they are; asdict would copy them."""
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a process is to be narrower than the operator's policy. None, and for limits also 0: no wish."""

    network: str | None = None
    memory_bytes: int | None = None
    tasks: int | None = None
    cpu_percent: int | None = None
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The server's part in a process's confinement. The rest is the operator's policy.

    cwd: the working directory as a workspace path, used where the program has namespaces. engines: folders
    of installed engines that it may read.
    """

    wish: Wish = Wish()
    cwd: str = "/"
    engines: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Choice:
        return cls(Wish(**data["wish"]), data["cwd"], _frozen(data["engines"]))


#: Fields that follow from the choice and the operator's policy, and are never taken from a server.
DECIDED = ("confine", "rlimits")


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What to execute, completely.

    argv: the program's absolute path first. env: the whole environment. pty: (cols, rows), or None for pipes.
    retention_bytes: how much output the log keeps. stall_ms: how long an unread viewer may block the process.
    watched: whether a viewer reads from the first byte on, so that the log is held for it. timeout_ms: wall
    time until the process is ended, 0 for none. escalation: (milliseconds after an ending signal, number of
    the signal that follows). choice: the server's part in the confinement. rlimits (resource number, soft,
    hard) and confine follow from it, see `sandbox.Allowed`. handed: how many descriptors come with the plan
    and stay open in the program, from number FIRST_HANDED on. control: whether the program also gets, as the
    next number, a socket whose other end every server gets. within: pid of a running process, 0 for none. The
    program runs in the same sandbox, ends with that process, and env is on top of that process's. facts: the
    server's own facts about the process; the supervisor stores them unread and hands them to the next server.
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
    within: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def after_start(self) -> LaunchPlan:
        """What is needed after the start: also what processes within this one take over. Within a process
        that is itself within another one there is nothing."""
        if self.within:
            return replace(self, env={}, confine=Confinement(), choice=Choice())
        return replace(self, confine=replace(self.confine, holder=None))

    def to_dict(self) -> dict[str, Any]:
        return {**_shallow(self), "confine": self.confine.to_dict(), "choice": self.choice.to_dict()}

    def to_request(self) -> dict[str, Any]:
        """What a server sends: everything but the fields in DECIDED."""
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
    """What comes with a plan: the working directory (-1 if it did not come), and the program's
    descriptors."""

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
    """A server's descriptors of a process, -1 for those that do not exist. input: open for writing; for a
    terminal it also sets the size. control: on which the program reports where it listens."""

    log: int
    input: int = -1
    control: int = -1

    def sent(self) -> list[int]:
        """In the order in which they travel."""
        return [fd for fd in self if fd >= 0]

    @classmethod
    def received(cls, descriptors: Sequence[int], control: bool) -> ProcessDescriptors:
        """What `sent` sent. control: as the record says; the input may have been closed by now."""
        came = list(descriptors)
        control_fd = came.pop() if control and came else -1
        log, input_, *_ = [*came, -1, -1]
        return cls(log, input_, control_fd)


#: Why a process ended, in its exit record.
REASONS = ("exit", "signal", "timeout", "memory", "killed", "idle", "stopped", "lost")


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What happened to a process, and how that is known.

    code and signal: exactly one is set unless reason is "lost". runtime_ms: wall time. cpu_ms and
    max_rss_bytes: the kernel's figures for the process and the children that it waited for. bytes: all
    that it wrote.
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
    """The supervisor's first message to each server.

    spawned: processes started so far. allowed: see sandbox.Allowed. settings: the operator's, see
    config.Settings.to_json. token: what the last server knew of it. path, node, no_node: the PATH of
    processes, the Node.js, or why there is none. listeners: descriptors of the listening sockets.
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
    """One process as the supervisor knows it; a new server starts from these.

    pid is the runtime's own; os_pid the kernel's. start_time_ms is epoch. facts: the server's, see
    LaunchPlan. stdin_open, control: which ProcessDescriptors come with it, beside the log.
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
