"""The user of processes, and whether this machine can give the sandbox that is asked for. Asks it once."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mhnos_runtime.cli import uids
from mhnos_runtime.cli.node import find_node
from mhnos_runtime.config import ConfigError, Settings
from mhnos_runtime.engines import EngineStore
from mhnos_runtime.ownfiles import Item, ProcessUser, Trust
from mhnos_runtime.process.plan import DEFAULT_PATH
from mhnos_runtime.sandbox import HostFacts, Policy, reaches_abstract_sockets
from mhnos_runtime.sandbox.plan import writable
from mhnos_runtime.sandbox.policy import OFFERED
from mhnos_runtime.sandbox.probe import probe, reachable

#: The user that installers make for processes.
USER_NAME = "mhnos"
#: Above what systems give to people and services, below what systemd hands out for a while (61184..65519).
_UNUSED = range(60_200, 60_500)
#: Never handed over, whoever names them as the workspace.
_SYSTEM_FOLDERS = frozenset(
    Path(f"/{name}")
    for name in (
        *("", "bin", "boot", "dev", "etc", "home", "lib", "opt", "proc", "root", "run", "sbin"),
        *("srv", "sys", "tmp", "usr", "var", "var/lib"),
    )
)


@dataclass(frozen=True, slots=True)
class User:
    """ids: (uid, gid), or None to stay who one is. hand_over: whether the workspace becomes theirs."""

    ids: tuple[int, int] | None
    name: str
    hand_over: bool = False


def choose_user(settings: Settings, *, claim: bool = True) -> User:
    """The workspace is there already. claim: whether an id that nobody names is taken for it, so that no
    other runtime gets it; without, nothing is changed. Raises ConfigError."""
    if os.geteuid() != 0:
        return _same_user(settings)
    if settings.allow_root:
        if settings.sandbox != "none":
            raise ConfigError(
                f"allow_root is set by {settings.source('allow_root')} with sandbox {settings.sandbox}; "
                "expected sandbox none, since only there processes may run as root"
            )
        return User(None, "root")
    if settings.user:
        return User(_named(settings), settings.user)
    owner = settings.workspace.stat()
    if owner.st_uid != 0:
        if claim and owner.st_uid in _UNUSED:
            with suppress(ConfigError):  # another workspace's by the operator's choice
                uids.claim((owner.st_uid,), settings.workspace)
        return User(
            (owner.st_uid, owner.st_gid or owner.st_uid), f"uid {owner.st_uid}, the workspace's owner"
        )
    if settings.workspace.resolve() in _SYSTEM_FOLDERS:
        raise ConfigError(
            f"workspace {settings.workspace} belongs to root and is part of the system",
            hint="choose another folder with MHNOS_WORKSPACE, or a user that owns it with --user",
        )
    return _chosen_for_it(settings.workspace, uids.claim if claim else uids.free)


def check_hand_over(settings: Settings, user: User) -> None:
    """A folder that somebody named, with files in it, is somebody's project, and keeps its owner. Its claim
    stays, so that the id in the hint is still this folder's. Raises ConfigError."""
    workspace = settings.workspace
    named = settings.source("workspace") != "default"
    if user.ids is None or not (user.hand_over and named and any(workspace.iterdir())):
        return
    owner, quoted = f"{user.ids[0]}:{user.ids[1]}", shlex.quote(str(workspace))
    raise ConfigError(
        f"workspace {workspace} belongs to root and is not empty: processes, which run as {user.name}, "
        "could not write in it",
        hint=f"`chown -R {owner} {quoted}` gives it to them; --user names another user; with "
        "--sandbox none --allow-root they run as root",
    )


def _same_user(settings: Settings) -> User:
    if settings.user and settings.user not in (str(os.geteuid()), _name_of(os.geteuid())):
        raise ConfigError(
            f'user is "{settings.user}" by {settings.source("user")}; '
            "expected nothing, since only root can run processes as someone else"
        )
    return User(None, "you")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _named(settings: Settings) -> tuple[int, int]:
    wrong = ConfigError(
        f'user is "{settings.user}" by {settings.source("user")}; '
        "expected the name of a user, or UID or UID:GID, and not root"
    )
    uid_text, _, gid_text = settings.user.partition(":")
    try:
        uid = int(uid_text) if uid_text.isdigit() else pwd.getpwnam(uid_text).pw_uid
        gid = int(gid_text) if gid_text else _group_of(uid)
    except (KeyError, ValueError):
        raise wrong from None
    if uid == 0 or gid == 0:
        raise wrong
    return uid, gid


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _chosen_for_it(workspace: Path, choose: Callable[[Iterable[int], Path], int]) -> User:
    """The user `mhnos` for the first runtime that has none named, an unused id for each other one."""
    try:
        entry = pwd.getpwnam(USER_NAME)
    except KeyError:
        entry = None
    made = () if entry is None else (entry.pw_uid,)
    uid = choose((*made, *(uid for uid in _UNUSED if not _used(uid))), workspace)
    if entry is not None and uid == entry.pw_uid:
        return User((uid, entry.pw_gid), USER_NAME, hand_over=True)
    return User((uid, uid), f"uid {uid}, which nobody else uses", hand_over=True)


def _used(number: int) -> bool:
    try:
        grp.getgrgid(number)
    except KeyError:
        return bool(_name_of(number))
    return True


def hand_over(workspace: Path, ids: tuple[int, int]) -> None:
    """Give what root owns of the workspace to the user; links are not followed."""
    real = workspace.resolve()
    os.chown(real, *ids)
    for _folder, folders, files, fd in os.fwalk(real, follow_symlinks=False):
        for name in (*folders, *files):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            # Another name of the same file may lie outside.
            linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
            if status.st_uid == 0 and not linked:
                os.chown(name, *ids, dir_fd=fd, follow_symlinks=False)


def check(settings: Settings, user: User) -> tuple[HostFacts, str, str]:
    """(facts, Node.js, why there is none). Raises ConfigError where the sandbox cannot be had."""
    engines = EngineStore(settings.engines_dir)
    node, no_node = find_node(user.ids, engines)
    facts = probe(user.ids, node)
    level = settings.sandbox
    missing = facts.missing(level)
    if missing:
        raise ConfigError(
            f"sandbox is {level} by {settings.source('sandbox')}, which this machine cannot give: "
            + "; ".join(f"{fact.name}: {fact.detail}" for fact in missing),
            hint="; ".join(fact.how for fact in missing) + "; mhnos-runtime doctor tells more",
        )
    if settings.network not in OFFERED[level]:
        raise ConfigError(
            f"network is {settings.network} by {settings.source('network')}, "
            f"which sandbox {level} cannot give; expected {' or '.join(OFFERED[level])}"
        )
    if level != "none":
        _check_entry(settings, user)
    return facts, node, no_node


def warnings(settings: Settings, facts: HostFacts) -> list[str]:
    """What the level that is set does not keep processes from on this machine, and would on another."""
    policy = Policy(settings.sandbox, settings.network)
    if settings.sandbox == "none" or not reaches_abstract_sockets(facts, policy):
        return []
    way_out = "--network loopback or none" + (
        " with --sandbox strict" if settings.sandbox != "strict" else ""
    )
    text = (
        "warning: processes can connect to this machine's abstract Unix sockets, X11's among them: only "
        f"Landlock ABI 6 (Linux 6.12) keeps them from those, and here is ABI {facts.landlock}; "
        f"{way_out} does so too"
    )
    return [text]


def path_for(user: User) -> str:
    """PATH without the folders that processes cannot enter: what is found there would be refused."""
    path = os.environ.get("PATH") or DEFAULT_PATH
    if user.ids is None:
        return path
    kept = [each for each in path.split(":") if os.path.isdir(each) and not reachable(each + "/x", user.ids)]
    return ":".join(dict.fromkeys(kept)) or DEFAULT_PATH


def _check_entry(settings: Settings, user: User) -> None:
    workspace = settings.workspace.resolve()
    closed = reachable(workspace / "x", user.ids) if user.ids is not None else ""
    if closed:
        raise ConfigError(
            f"workspace {settings.workspace} cannot be entered by the user that processes run as "
            f"({user.name}): {closed} is closed to them",
            hint="choose another folder with MHNOS_WORKSPACE, or another user with --user",
        )


def trust(settings: Settings, user: User, files: Sequence[Path]) -> Trust:
    """What processes must not be able to change, and where they can write. files: of settings, there or not.

    Where they run without a sandbox as the runtime's own user, nothing keeps them from its files; then only
    the state directory must not lie where clients push and pull.
    """
    open_ = settings.sandbox == "none" and user.ids is None
    folders = writable(settings.sandbox, str(settings.workspace))[: 1 if open_ else None]
    items = [Item("state_dir", str(settings.state_dir), "put it elsewhere with MHNOS_STATE_DIR")]
    if not open_:
        engines = str(settings.engines_dir)
        items.append(Item("engines_dir", engines, "put it elsewhere with MHNOS_ENGINES_DIR"))
        items += [Item("config file", str(file), "choose another place with --config") for file in files]
        for name in ("tls_cert", "tls_key"):
            if file := getattr(settings, name):
                items.append(Item(name, str(file), "move it"))
    ids = user.ids or (os.geteuid(), os.getegid())
    groups = (ids[1],) if user.ids else (*os.getgroups(), os.getegid())
    return Trust(
        tuple((path, f"workspace {path}" if not n else path, not n) for n, path in enumerate(folders)),
        ProcessUser(ids[0], groups),
        tuple(items),
        with_code=not open_,
    )


def check_own_files(own: Trust, level: str) -> None:
    """Before any program that is found on the way is started. Raises ConfigError."""
    if exposed := own.check():
        raise ConfigError(f"{exposed} (sandbox {level})", hint=exposed.item.hint)
