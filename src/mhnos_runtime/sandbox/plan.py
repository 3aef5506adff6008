"""From policy and host facts to the confinement of one process: data in, data out. Touches nothing itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mhnos_runtime.launch import UNIFIED, UNIFIED_CPU, Confinement, Holder, Limits, holds
from mhnos_runtime.sandbox import landlock
from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.sandbox.policy import Level, Policy

#: The workspace's path inside strict.
INSIDE = "/workspace"
#: The soft limit that programs expect; programs that use select(2) fail above it.
OPEN_FILES = 1024
HOST_NAME = "mhnos"

_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--hostname", HOST_NAME),
)
#: A network namespace with a loopback interface only, which is up.
_OWN_NETWORK = ("--unshare-net",)
_SHARED_NETWORK = ("--unshare-user", "--unshare-net", "--die-with-parent", "--ro-bind", "/", "/")
#: Devices that programs need in relaxed, where they share the host's. tty is each process's own. ptmx is left
#: out: its terminals have names that Landlock cannot know before.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - its name (shm_overview(7))
#: Private to each process in strict, where the second is a link to the first.
_TMP, _VAR_TMP = "/tmp", "/var/tmp"  # noqa: S108
#: What strict makes and fills itself; and folders that it makes, in which others may be.
_TAKEN = (INSIDE, "/proc", "/dev", "/etc")
_MADE = (_TMP, _VAR_TMP, "/run")
_READABLE = ("/proc/", "/sys/devices/system/", "/sys/fs/cgroup/", "/etc/")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Shared by all processes of a runtime. workspace: its path on the host. engines: folders of installed
    programs, which processes may read. own_folders: (engine, path) of a folder in a shared place such as /tmp
    in which an engine's processes write; {uid} in the path is their user."""

    policy: Policy
    facts: HostFacts
    workspace: str
    engines: tuple[str, ...] = ()
    own_folders: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sandbox:
        """The Sandbox that asdict made, also after a way through JSON."""
        user = data["policy"]["user"]
        policy = Policy(**{**data["policy"], "user": None if user is None else (user[0], user[1])})
        own_folders = tuple((engine, path) for engine, path in data["own_folders"])
        facts = HostFacts.from_dict(data["facts"])
        return cls(policy, facts, data["workspace"], tuple(data["engines"]), own_folders)


@dataclass(frozen=True, slots=True)
class View:
    """The machine as processes see it. path: their PATH, with only folders that they can read."""

    workspace: str
    path: str


def view(sandbox: Sandbox, path: str) -> View:
    level = sandbox.policy.level
    if level == "none":
        return View(sandbox.workspace, path)
    kept = [folder for folder in path.split(":") if visible(sandbox, folder)]
    return View(INSIDE if level == "strict" else sandbox.workspace, ":".join(dict.fromkeys(kept)))


def visible(sandbox: Sandbox, path: str) -> bool:
    """Whether a file of the host is readable inside by the same path."""
    return sandbox.policy.level == "none" or any(_is_within(path, root) for root in _shown(sandbox))


def places(sandbox: Sandbox) -> tuple[str, ...]:
    """Paths by which processes see the workspace; the first one is their HOME."""
    if sandbox.policy.level != "strict":
        return (sandbox.workspace,)
    return (INSIDE, sandbox.workspace) if _own_path(sandbox) else (INSIDE,)


def _shown(sandbox: Sandbox) -> list[str]:
    """What of the host is readable inside by the same path, beside the workspace."""
    node = [sandbox.facts.node.rstrip("/")] if sandbox.facts.node else []
    return [*(root for root, _target in sandbox.facts.system), *node, *sandbox.engines]


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _own_path(sandbox: Sandbox) -> str:
    """Where strict shows the workspace once more: its path on the host, which the scripts of a virtual
    environment contain that was made there. "" where it is in the way of what strict shows else."""
    workspace = sandbox.workspace
    taken = (*_shown(sandbox), *_TAKEN)
    overlaps = any(_is_within(workspace, path) or _is_within(path, workspace) for path in taken)
    if overlaps or any(_is_within(path, workspace) for path in _MADE):
        return ""
    # Inside, /var/tmp is a link, and bubblewrap makes no folders behind one.
    return _TMP + workspace.removeprefix(_VAR_TMP) if _is_within(workspace, _VAR_TMP) else workspace


def confine(
    sandbox: Sandbox, policy: Policy, cwd: str, handed_sockets: bool = False
) -> tuple[Confinement, tuple[tuple[int, int, int], ...]]:
    """Confinement and resource limits. policy: narrowed for this process. cwd: as a workspace path.
    handed_sockets: whether the program gets sockets of the machine's network."""
    facts = sandbox.facts
    limits = Limits(policy.memory_bytes, policy.tasks, policy.cpu_percent, _groups(facts, policy))
    if policy.level == "none":
        return Confinement(user=policy.user, limits=limits), rlimits(policy)
    strict = policy.level == "strict"
    confinement = Confinement(
        user=policy.user,
        holder=_holder(sandbox, policy) if strict else None,
        directory=f"{INSIDE}/{cwd.strip('/')}".rstrip("/") if strict else "",
        no_new_privs=True,
        landlock=landlock.barrier(facts.landlock) if strict else _ruleset(sandbox, policy),
        seccomp=_filter(facts, policy, handed_sockets),
        limits=limits,
    )
    return confinement, rlimits(policy)


def _groups(facts: HostFacts, policy: Policy) -> tuple[tuple[str, str], ...]:
    """Hierarchies with a limit to enforce: joining a group takes up to milliseconds."""
    needed = {"memory": policy.memory_bytes, "pids": policy.tasks, "cpu": policy.cpu_percent}
    return tuple(
        row for row in facts.cgroups if any(limit and holds(row[0], name) for name, limit in needed.items())
    )


def _filter(facts: HostFacts, policy: Policy, handed_sockets: bool) -> str:
    """In strict a network namespace replaces the narrower filter of relaxed."""
    narrow = policy.level == "relaxed" and policy.network != "host"
    sealed = handed_sockets and policy.network != "host"
    name = policy.level + ("-no-network" if narrow else "") + ("-no-connect" if sealed else "")
    return (facts.filters or {})[name]


def rlimits(policy: Policy) -> tuple[tuple[int, int, int], ...]:
    """(resource, soft, hard). Tasks only in strict, where the kernel counts them for a user namespace."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = policy.open_files or hard
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    soft = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    rows = [(resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_NOFILE, soft, most)]
    if policy.file_bytes:
        rows.append((resource.RLIMIT_FSIZE, policy.file_bytes, policy.file_bytes))
    if policy.cpu_seconds:
        rows.append((resource.RLIMIT_CPU, policy.cpu_seconds, policy.cpu_seconds + 1))
    if policy.tasks and policy.level == "strict":
        rows.append((resource.RLIMIT_NPROC, policy.tasks, policy.tasks))
    return tuple(rows)


def _holder(sandbox: Sandbox, policy: Policy) -> Holder:
    uid, gid = policy.user or (os.getuid(), os.getgid())
    return Holder(
        program=sandbox.facts.bubblewrap,
        options=(*_NAMESPACES, *_nesting(sandbox.facts), *_network(policy), *_files(sandbox, policy)),
        files=(
            (
                "/etc/passwd",
                f"mhnos:x:{uid}:{gid}:mhnos:{INSIDE}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
            ),
            ("/etc/group", f"mhnos:x:{gid}:\nnogroup:x:65534:\n"),
        ),
        network=_SHARED_NETWORK if policy.network == "loopback" else (),
    )


def _nesting(facts: HostFacts) -> tuple[str, ...]:
    """Forbids user namespaces inside, also for the holder, which has no system call filter."""
    return ("--disable-userns",) if facts.disable_userns else ()


def _network(policy: Policy) -> tuple[str, ...]:
    return _OWN_NETWORK if policy.network == "none" else ()


def _files(sandbox: Sandbox, policy: Policy) -> list[str]:
    facts = sandbox.facts
    size = ["--size", str(policy.memory_bytes)] if facts.sized_tmpfs and policy.memory_bytes else []
    private = ["--perms", "1777", *size, "--tmpfs"]
    # Files in memory have a size limit, and the rest of /dev is read-only.
    options = ["--proc", "/proc", "--dev", "/dev", *private, "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    options += [*private, _TMP, "--dir", "/var", "--symlink", _TMP, _VAR_TMP, "--dir", "/run"]
    for path, target in facts.system:
        options += ["--symlink", target, path] if target else ["--ro-bind", path, path]
    for path in facts.configuration:
        if policy.network == "host" or path != "/etc/resolv.conf":
            options += ["--ro-bind-try", path.rstrip("/"), path.rstrip("/")]
    if facts.node:
        options += ["--ro-bind", facts.node.rstrip("/"), facts.node.rstrip("/")]
    for folder in sandbox.engines:
        options += ["--ro-bind", folder, folder]
    own = _own_path(sandbox)
    options += ["--bind", sandbox.workspace, own] if own else []
    return [*options, "--bind", sandbox.workspace, INSIDE]


def writable(level: Level, workspace: str) -> tuple[str, ...]:
    """Folders of the machine that this level lets processes write in, as far as owners and modes allow; the
    workspace first."""
    return {"strict": (workspace,), "relaxed": (workspace, _SHARED_MEMORY), "none": (workspace, "/")}[level]


def _ruleset(sandbox: Sandbox, policy: Policy) -> Any:
    facts = sandbox.facts
    readable = [path + "/" for path, _target in facts.system]
    readable += [*facts.linked, *_READABLE, *([facts.node] if facts.node else [])]
    readable += [folder.rstrip("/") + "/" for folder in sandbox.engines]
    rules: Iterable[tuple[str, int, bool]] = (
        *((path, landlock.READ, path.endswith("/")) for path in readable),
        *((f"/dev/{name}", landlock.DEVICE, False) for name in _DEVICES),
        (_SHARED_MEMORY, landlock.SHARED, True),
        (sandbox.workspace, landlock.WRITE, True),
    )
    return landlock.ruleset(
        facts.landlock, rules, network=policy.network == "host", own_folders=_own_folders(sandbox, policy)
    )


def _own_folders(sandbox: Sandbox, policy: Policy) -> list[str]:
    """Own folders of the installed engines; an engine lies in a folder NAME/VERSION."""
    uid = policy.user[0] if policy.user else os.getuid()
    engines = {os.path.basename(os.path.dirname(folder.rstrip("/"))) for folder in sandbox.engines}
    return [path.format(uid=uid) for engine, path in sandbox.own_folders if engine in engines]


def reaches_abstract_sockets(facts: HostFacts, policy: Policy) -> bool:
    """Whether a process reaches the machine's abstract Unix sockets (unix(7)), X11's among them. They have no
    path, so mounts do not hide them: they belong to the network namespace, and only Landlock can scope
    them."""
    if policy.level == "none":
        return True
    own_network = policy.level == "strict" and policy.network != "host"
    return not own_network and not landlock.scopes(facts.landlock)


@dataclass(frozen=True, slots=True)
class Isolation:
    """The confinement that a process got. uid: on the host. landlock: its ABI, 0 for none. limits: who
    enforces those of memory, tasks and cpu: "cgroup v1", "cgroup v2", "rlimit", "watchdog" or "none".
    host_abstract_sockets: whether it reaches the machine's abstract Unix sockets."""

    level: str
    network: str
    uid: int
    namespaces: tuple[str, ...]
    landlock: int
    seccomp: bool
    limits: Mapping[str, str]
    host_abstract_sockets: bool


def describe(facts: HostFacts, policy: Policy) -> Isolation:
    """The confinement that a process with this policy gets, for its record."""

    def by(controller: str, otherwise: str) -> str:
        for hierarchy, _directory in facts.cgroups:
            if holds(hierarchy, controller):
                return "cgroup v2" if hierarchy in (UNIFIED, UNIFIED_CPU) else "cgroup v1"
        return otherwise

    limits = {
        "memory": by("memory", "watchdog") if policy.memory_bytes else "none",
        "tasks": by("pids", "rlimit" if policy.level == "strict" else "watchdog") if policy.tasks else "none",
        "cpu": by("cpu", "none") if policy.cpu_percent else "none",
    }
    namespaces = ("user", "mount", "pid", "ipc", "uts", "cgroup") if policy.level == "strict" else ()
    return Isolation(
        level=policy.level,
        network=policy.network,
        uid=policy.user[0] if policy.user else os.getuid(),
        namespaces=namespaces + (("net",) if namespaces and policy.network != "host" else ()),
        landlock=facts.landlock if policy.level != "none" else 0,
        seccomp=policy.level != "none",
        limits=limits,
        host_abstract_sockets=reaches_abstract_sockets(facts, policy),
    )
