"""Finds out what this host can do, mostly by trying. Runs once before the runtime starts, and in `doctor`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from mhnos_runtime.launch import UNIFIED, UNIFIED_CPU, holds
from mhnos_runtime.sandbox import cgroups, seccomp
from mhnos_runtime.sandbox.facts import Fact, HostFacts
from mhnos_runtime.sandbox.landlock import describe as describe_landlock
from mhnos_runtime.sandbox.landlock import scopes

_TIMEOUT_SECONDS = 10
#: Names on one path, links expanded: more than PATH_MAX has room for.
_MAX_STEPS = 4096
_SYS_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1
_PR_GET_SECCOMP = 21
#: Docker options: the container's filter allows user namespaces (profile in packaging/docker), and neither
#: its masked parts of /proc nor its AppArmor profile prevent mounts.
_CONTAINER_FLAGS = " ".join(
    f"--security-opt {option}"
    for option in ("seccomp=seccomp.json", "systempaths=unconfined", "apparmor=unconfined")
)
#: The user nobody, to try what a user without privileges can do.
NOBODY = (65534, 65534)

#: System directories by the File System Hierarchy, by Nix and by Guix.
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/nix/store", "/nix/var/nix/profiles", "/run/current-system", "/gnu/store"),
)
#: What programs need of /etc. Nothing here is secret: /etc/ssl and /etc/pki without private keys.
_CONFIGURATION = (
    *("alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies"),
    *("debian_version", "fonts", "gai.conf", "host.conf", "hosts", "inputrc", "ld.so.cache", "ld.so.conf"),
    *("ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "lsb-release", "magic", "mime.types"),
    *("nanorc", "nsswitch.conf", "os-release", "pki/ca-trust", "pki/tls/cert.pem", "pki/tls/certs"),
    *("pki/tls/openssl.cnf", "profile", "profile.d", "protocols", "python3", "redhat-release"),
    *("resolv.conf", "rpc", "services", "shells", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf"),
    *("terminfo", "timezone", "vim", "zsh"),
)


_TRIAL = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"),
    *("--unshare-cgroup-try", "--die-with-parent", "--hostname", "trial"),
    *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
)
_APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_CLONE = "/proc/sys/kernel/unprivileged_userns_clone"
_MAXIMUM = "/proc/sys/user/max_user_namespaces"


def probe(user: tuple[int, int] | None, node: str = "", engines: tuple[Fact, ...] = ()) -> HostFacts:
    """The facts for processes of this user (None: the caller's own). node: path of the Node.js in use.
    engines: facts about engines, to show with the rest."""
    bubblewrap = shutil.which("bwrap") or ""
    options = _output([bubblewrap, "--help"]) if bubblewrap else ""
    nesting = ("--disable-userns",) if "--disable-userns " in options else ()
    trial = _try_namespaces(bubblewrap, nesting, user if user or os.geteuid() else NOBODY)
    library, filters = _filters()
    abi = landlock_abi()
    places, no_places = cgroups.find()
    system, configuration = tuple(_system()), tuple(_configuration())
    return HostFacts(
        bubblewrap=bubblewrap,
        namespaces=not trial,
        landlock=abi,
        filters=filters,
        cgroups=tuple((place.hierarchy, str(place.directory)) for place in places),
        system=system,
        configuration=configuration,
        linked=tuple(path for path in configuration if not os.path.realpath(path).startswith("/etc/")),
        node=_beside_system(node, system),
        sized_tmpfs="--size " in options,
        disable_userns=bool(nesting),
        rows=(
            _bubblewrap(bubblewrap),
            _namespaces(bubblewrap, trial),
            _landlock(abi),
            _scope(abi),
            _seccomp(),
            _libseccomp(library),
            _groups(places, no_places),
            _terminals(),
            *engines,
        ),
    )


def landlock_abi() -> int:
    """0 if the kernel has no Landlock, or a filter refuses the call."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(
        ctypes.c_long(_SYS_LANDLOCK_CREATE_RULESET),
        None,
        ctypes.c_ulong(0),
        ctypes.c_ulong(_LANDLOCK_VERSION),
    )
    return max(0, int(abi))


def reachable(path: str | os.PathLike[str], user: tuple[int, int]) -> str:
    """The first folder on the way to `path`, over links too, that this user, in its one group, cannot enter,
    or "". Nothing is looked at in a folder that the user cannot enter, nor where links of /proc lead, which
    are other ones for each process. Raises OSError for a folder that is not there."""
    here, todo = "/", _names(os.path.join(os.getcwd(), path))
    for _ in range(_MAX_STEPS):
        if not todo:
            return ""
        if here.startswith("/proc/") or not _enters(user, os.stat(here)):
            return here
        here = os.path.normpath(os.path.join(here, todo.pop()))  # there are no links in it
        target = os.readlink(here) if os.path.islink(here) else None
        if target is not None:
            todo += _names(target)
            here = "/" if target.startswith("/") else os.path.dirname(here)
    return ""


def _names(path: str) -> list[str]:
    """The next one last."""
    return [name for name in path.split("/") if name][::-1]


def _enters(user: tuple[int, int], status: os.stat_result) -> bool:
    shift = 6 if status.st_uid == user[0] else 3 if status.st_gid == user[1] else 0
    return bool(status.st_mode >> shift & 1)


def _try_namespaces(bubblewrap: str, nesting: tuple[str, ...], user: tuple[int, int] | None) -> str:
    """Why a complete sandbox cannot be made, in bubblewrap's words, or "". nesting: options of processes."""
    if not bubblewrap:
        return "bubblewrap is missing"
    program = shutil.which("true", path="/usr/bin:/bin:/run/current-system/sw/bin") or "/bin/true"
    command = [bubblewrap, *_TRIAL, *nesting, "--", program]
    try:
        if user is None or os.geteuid():
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        else:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
                user=user[0],
                group=user[1],
                extra_groups=[],
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"bubblewrap ended with {done.returncode}"


def _bubblewrap(path: str) -> Fact:
    version = _output([path, "--version"]).strip() if path else ""
    return Fact(
        "bubblewrap",
        bool(version),
        f"{version} ({path})" if version else "not on this machine",
        "strict",
        "install the package bubblewrap",
    )


def _namespaces(bubblewrap: str, trial: str) -> Fact:
    if not trial:
        detail = "user, mount, PID, IPC, UTS, network and cgroup namespaces work without privileges"
        return Fact("user namespaces", True, detail, "strict")
    reason, how = _why_no_namespaces()
    return Fact("user namespaces", False, f"{reason} ({trial})" if bubblewrap else reason, "strict", how)


def _why_no_namespaces() -> tuple[str, str]:
    if _number(_MAXIMUM) == 0:
        return "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=15000"
    if _number(_CLONE) == 0:
        return "kernel.unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"
    if _number(_APPARMOR) == 1:
        return (
            "AppArmor restricts user namespaces",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap",
        )
    if in_container():
        return (
            "this container may not make namespaces",
            f"run it with {_CONTAINER_FLAGS} (docker, podman), or use MHNOS_SANDBOX=relaxed",
        )
    if not Path("/proc/self/ns/user").exists():
        return "the kernel has no user namespaces", "use a kernel with CONFIG_USER_NS"
    return "namespaces could not be tried or were refused", "install bubblewrap, or use MHNOS_SANDBOX=relaxed"


def in_container() -> bool:
    """Whether this looks like a container: marker files, or a filter over this process."""
    if any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv", "/run/systemd/container"))):
        return True
    return _seccomp_mode() == 2


def _seccomp_mode() -> int:
    with contextlib.suppress(OSError):
        match = re.search(r"^Seccomp:\s*(\d)", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(match[1]) if match else 0
    return 0


def _landlock(abi: int) -> Fact:
    detail = describe_landlock(abi) if abi else "the kernel has none, or it is switched off"
    how = "a kernel of 5.13 or newer with landlock among its security modules (lsm=landlock,...)"
    return Fact("landlock", bool(abi), detail, "relaxed", how)


def _scope(abi: int) -> Fact:
    if scopes(abi):
        detail = "Landlock keeps processes from the machine's abstract Unix sockets, also with its network"
    else:
        detail = (
            "Landlock cannot yet keep processes from the machine's abstract Unix sockets, X11's among them: "
            "strict with network host and relaxed leave them open"
        )
    how = "Linux 6.12 or newer; until then MHNOS_NETWORK=loopback or none, in strict"
    return Fact("abstract socket scope", scopes(abi), detail, "network host, relaxed", how)


def _seccomp() -> Fact:
    there = "filter" in _output_of("/proc/sys/kernel/seccomp/actions_avail") or "errno" in _output_of(
        "/proc/sys/kernel/seccomp/actions_avail"
    )
    if not there:
        there = ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0
    detail = "filters work" if there else "the kernel has no seccomp filters"
    return Fact("seccomp", there, detail, "strict, relaxed", "use a kernel with CONFIG_SECCOMP_FILTER")


def _filters() -> tuple[str, dict[str, str]]:
    """("", the compiled filters), or the reason why there are none."""
    old = 0 < landlock_abi() < 3
    try:
        return "", {
            name + suffix: seccomp.compile_filter(
                network=network, others=others, connect=connect, old_landlock=old
            )
            for name, network, others in (
                ("strict", True, True),
                ("relaxed", True, False),
                ("relaxed-no-network", False, False),
            )
            for suffix, connect in (("", True), ("-no-connect", False))
        }
    except OSError as error:
        return str(error), {}


def _libseccomp(missing: str) -> Fact:
    how = "install the package libseccomp2 (libseccomp)"
    return Fact("libseccomp", not missing, missing or "compiles the filters", "strict, relaxed", how)


def _groups(parents: list[cgroups.GroupParent], reason: str) -> Fact:
    if parents:
        version = "v2" if parents[0].hierarchy in (UNIFIED, UNIFIED_CPU) else "v1"
        shown = ", ".join(dict.fromkeys(str(parent.directory) for parent in parents))
        if not any(holds(parent.hierarchy, "cpu") for parent in parents):
            shown += ", without CPU"
        return Fact("cgroups", True, f"{version}: {shown}", "exact limits of memory, tasks and CPU")
    user = "--user " if os.geteuid() else ""
    how = (
        f"run as a systemd service with Delegate=yes, or systemd-run {user}--scope -p Delegate=yes "
        "mhnos-runtime serve; without, a watchdog measures memory and tasks, and a hostile process can hide "
        "memory from it"
    )
    return Fact("cgroups", False, reason, "exact limits of memory, tasks and CPU", how)


def _terminals() -> Fact:
    most, used = _number("/proc/sys/kernel/pty/max"), _number("/proc/sys/kernel/pty/nr")
    found = os.path.exists("/dev/ptmx") and (most is None or used is None or used < most)
    detail = f"{used} of {most} in use" if most is not None else "no limit known"
    return Fact("terminals", found, detail, "shells", "sysctl -w kernel.pty.max=4096")


def _system() -> Iterator[tuple[str, str]]:
    """(path, link target or "") of existing system directories."""
    for path in _SYSTEM:
        if os.path.islink(path):
            yield path, os.readlink(path)
        elif os.path.isdir(path):
            yield path, ""


def _configuration() -> Iterator[str]:
    """Existing entries of /etc; folders end in a slash."""
    for name in _CONFIGURATION:
        path = f"/etc/{name}"
        if os.path.exists(path):
            yield path + "/" if os.path.isdir(path) else path


def _beside_system(program: str, system: tuple[tuple[str, str], ...]) -> str:
    """The part of the host to show for a program outside of the system directories: the folder of its
    installation (ending in a slash) if it looks like one, else the file alone."""
    if not program or any(program.startswith(root + "/") for root, _target in system):
        return ""
    prefix = Path(program).parent.parent
    whole = Path(program).parent.name == "bin" and (prefix / "lib").is_dir() and prefix not in _TOO_WIDE
    return f"{prefix}/" if whole and prefix != Path.home() else program


_TOO_WIDE = (Path("/"), Path("/usr"), Path("/home"), Path("/root"), Path("/opt"))


def _output(command: list[str]) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
        return done.stdout
    return ""


def _output_of(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return ""


def _number(path: str) -> int | None:
    text = _output_of(path).strip()
    return int(text) if text.isdigit() else None
