"""Whether processes could change the files that the runtime consists of: interpreter, code, settings, state.

Knows paths, owners, modes and mounts; callers say where processes may write. Standard library only, since a
new version runs it before it takes over.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import site
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mhnos_runtime

#: Symbolic links on one path, as the kernel counts them (path_resolution(7)).
_MAX_LINKS = 40
_CODE_HINT = (
    "install the runtime where processes cannot write (uv tool install mhnos-runtime, or "
    "pipx install mhnos-runtime), or choose another folder with MHNOS_WORKSPACE"
)
_LINK_HINT = (
    "install the runtime with files of its own: UV_LINK_MODE=copy uv tool install --reinstall mhnos-runtime"
)
#: Programs that the runtime starts outside of any sandbox.
_PROGRAMS = ("bwrap", "node")


@dataclass(frozen=True, slots=True)
class ProcessUser:
    """The user of processes. groups: all of them."""

    uid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Permissions:
    """Owner and mode, from stat(2). acl: whether an access control list adds to the mode."""

    uid: int
    gid: int
    mode: int
    acl: bool = False


#: (device, path on its file system): equal for all paths of one file, also over bind mounts.
Location = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Step:
    """One name on the way to a file, links included. path: with all folders resolved. folder: of the folder
    that contains it. own: None where nothing exists."""

    path: str
    location: Location
    folder: Permissions
    own: Permissions | None


@dataclass(frozen=True, slots=True)
class Item:
    """A path that the runtime trusts. what: for people, such as "state_dir". hint: what to do."""

    what: str
    path: str
    hint: str


@dataclass(frozen=True, slots=True)
class Root:
    """A folder in which processes may write. theirs: with everything in it, whatever owners and modes say."""

    path: str
    location: Location
    what: str
    theirs: bool


@dataclass(frozen=True, slots=True)
class Exposure:
    """An item that processes could change. step: the name on the way to it by which they could."""

    item: Item
    step: str
    root: Root

    def __str__(self) -> str:
        by = f" by {self.step}" if self.step != self.item.path else ""
        where = f"lies in {self.root.what}" if self.root.path != "/" else "is open to the user of processes"
        return f"{self.item.what} {self.item.path} {where}{by}: processes could change it"


def find_exposed(
    trusted: Iterable[tuple[Item, Sequence[Step]]], roots: Sequence[Root], user: ProcessUser
) -> Exposure | None:
    """The first item that processes could change or replace, or a name on the way to it. Pure."""
    for item, steps in trusted:
        for step in steps:
            for root in roots:
                if _open(step, step is steps[-1], root, user):
                    return Exposure(item, step.path, root)
    return None


def _open(step: Step, last: bool, root: Root, user: ProcessUser) -> bool:
    """Whether they can change or replace what this name stands for. The root itself they can only fill."""
    if step.path == root.path or step.location == root.location:
        return last and (root.theirs or (step.own is not None and _may_write(step.own, user)))
    return _inside(step, root) and (root.theirs or _changeable(step, user, last))


def _inside(step: Step, root: Root) -> bool:
    return _below(step.path, root.path) or (
        step.location[0] == root.location[0] and _below(step.location[1], root.location[1])
    )


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _changeable(step: Step, user: ProcessUser, last: bool) -> bool:
    """Whether owners and modes let them replace it or, at the end of the way, change it."""
    if _may_write(step.folder, user):
        kept = step.own is not None and user.uid not in (step.own.uid, step.folder.uid)
        if not (step.folder.mode & stat.S_ISVTX and kept):
            return True
    own = step.own
    return last and own is not None and not stat.S_ISLNK(own.mode) and _may_write(own, user)


def _may_write(status: Permissions, user: ProcessUser) -> bool:
    """An owner may change the mode. Of an access control list only the mask is checked (acl(5))."""
    group = status.acl or status.gid in user.groups
    return status.uid == user.uid or bool(status.mode & 0o002) or (group and bool(status.mode & 0o020))


# Facts


def code() -> list[Item]:
    """What the running interpreter executes, or would execute after a restart."""
    package = os.path.dirname(os.path.abspath(mhnos_runtime.__file__))
    paths = [("interpreter", sys.executable), ("package", package)]
    paths += [("interpreter's folder", each) for each in (sys.prefix, sys.base_prefix, sys.exec_prefix)]
    paths += [("folder of modules", _absolute(each)) for each in sys.path]
    if site.ENABLE_USER_SITE:
        paths.append(("folder of modules", site.getusersitepackages()))
    paths += [("folder of modules", each) for each in (*_added(), *_editable())]
    paths += [(f"program {name}", found) for name in _PROGRAMS if (found := shutil.which(name))]
    items = [Item(what, path, _CODE_HINT) for what, path in dict.fromkeys(paths) if path]
    return items + [Item(name, path, f"take it out of {name}") for name, path in _by_variables()]


def _added() -> Iterator[str]:
    """Folders that *.pth files add to sys.path (site). A folder that does not exist yet is added at the first
    start that finds it."""
    for folder in dict.fromkeys(map(_absolute, sys.path)):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".pth"):
                    yield from _named_in(entry.path, folder)


def _named_in(file: str, folder: str) -> Iterator[str]:
    with suppress(OSError):
        for line in Path(file).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                yield os.path.join(folder, line.rstrip())


def _by_variables() -> Iterator[tuple[str, str]]:
    """(variable, path) of compiled modules and of libraries that every program loads (ld.so(8))."""
    if sys.pycache_prefix:
        yield "PYTHONPYCACHEPREFIX", sys.pycache_prefix
    for name, separators in (("LD_LIBRARY_PATH", "[:;]"), ("LD_PRELOAD", "[: ]")):
        for each in re.split(separators, os.environ.get(name, "")) if os.environ.get(name) else ():
            # An empty folder is the working directory. A library without a slash is searched in folders.
            if name == "LD_LIBRARY_PATH" or "/" in each:
                yield name, _absolute(each)


def _editable() -> Iterator[str]:
    """Folders of packages that are installed as editable (PEP 610)."""
    for info in _infos():
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            origin = json.loads(Path(info, "direct_url.json").read_text(encoding="utf-8"))
            if origin.get("dir_info", {}).get("editable"):
                yield unquote(urlsplit(origin["url"]).path)


def _infos() -> Iterator[str]:
    """Metadata folders of installed packages (PEP 376)."""
    for folder in dict.fromkeys(map(_absolute, sys.path)):
        with suppress(OSError), os.scandir(folder) as entries:
            yield from (entry.path for entry in entries if entry.name.endswith(".dist-info"))


def linked(workspace: str, user: ProcessUser) -> tuple[str, str] | None:
    """(a file of an installed package, its other name in the workspace), if processes could write to it.

    Package managers that link from one cache (uv, by default) give the runtime and an environment in the
    workspace the same files. The workspace is searched only if a package is installed that way.
    """
    files: dict[tuple[int, int], str] = {}
    for info in _infos():
        if _links(f"{info}/METADATA", user):
            distribution = importlib.metadata.PathDistribution(Path(info))
            paths = [str(distribution.locate_file(each)) for each in distribution.files or ()]
            files.update({key: path for path in paths if (key := _links(path, user))})
    if not files:
        return None
    inodes = {inode for _device, inode in files}
    for entry in _names(workspace):
        if entry.inode() in inodes:
            status = entry.stat(follow_symlinks=False)
            if found := files.get((status.st_dev, status.st_ino)):
                return found, entry.path
    return None


def _links(path: str, user: ProcessUser) -> tuple[int, int] | None:
    """(device, inode) of a file that has other names too and that they can write."""
    with suppress(OSError):
        status = os.lstat(path)
        own = Permissions(status.st_uid, status.st_gid, status.st_mode)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and _may_write(own, user):
            return status.st_dev, status.st_ino
    return None


def _names(folder: str) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, links not followed: some 500,000 names a second."""
    folders = [folder]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry


def look(items: Iterable[Item]) -> list[tuple[Item, list[Step]]]:
    mounts = _mounts()
    return [(item, list(_walk(item.path, mounts))) for item in items]


def _walk(path: str, mounts: list[tuple[str, Location]]) -> Iterator[Step]:
    """Every name that the kernel passes on the way to `path`, up to the first that does not exist."""
    names = [name for name in _absolute(path).split("/") if name][::-1]
    here, links = "/", 0
    while names:
        name = names.pop()
        if name in (".", ""):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, name)
        try:
            own = _permissions(there)
            yield Step(there, _location(there, mounts), _required(here), own)
        except OSError:
            return
        if own is None:
            return
        if not stat.S_ISLNK(own.mode):
            here = there
            continue
        links += 1
        if links > _MAX_LINKS:
            return
        target = os.readlink(there)
        here = "/" if target.startswith("/") else here
        names += [name for name in target.split("/") if name][::-1]


def _absolute(path: str) -> str:
    """The path with ".." in it, which the kernel resolves behind links. The working directory may be gone."""
    return path if path.startswith("/") else os.path.join(os.getcwd(), path)


def _permissions(path: str) -> Permissions | None:
    try:
        return _required(path)
    except FileNotFoundError:
        return None


def _required(path: str) -> Permissions:
    found = os.lstat(path)
    try:
        acl = "system.posix_acl_access" in os.listxattr(path, follow_symlinks=False)
    except OSError:
        acl = False
    return Permissions(found.st_uid, found.st_gid, found.st_mode, acl)


def _mounts() -> list[tuple[str, Location]]:
    """(mount point, location) of each mount, later ones over earlier ones (proc(5))."""
    rows = []
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
            fields = line.split(" ")
            device, root, point = fields[2], *(_unescaped(field) for field in fields[3:5])
            rows.append((point, (device, root)))
    return rows


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _location(path: str, mounts: list[tuple[str, Location]]) -> Location:
    best, found = -1, ("", "")
    for point, (device, root) in mounts:
        if len(point) >= best and _below(path, point):
            best, found = len(point), (device, os.path.join(root, os.path.relpath(path, point)))
    return found[0], os.path.normpath(found[1]) if found[1] else path


@dataclass(frozen=True, slots=True)
class Trust:
    """What is to be checked, in a form that travels to the version that takes over. writable: (folder, name
    for people, whether everything in it is theirs). items: beside the code. with_code: whether the caller's
    code is checked too."""

    writable: tuple[tuple[str, str, bool], ...]
    whom: ProcessUser
    items: tuple[Item, ...] = ()
    with_code: bool = True

    def check(self) -> Exposure | None:
        """Checks the files as they are now. The code is that of the caller."""
        mounts = _mounts()
        roots = [
            Root(real, _location(real, mounts), what, theirs)
            for real, what, theirs in (
                (os.path.realpath(path), what, all_) for path, what, all_ in self.writable
            )
        ]
        own = code() if self.with_code else []
        if exposed := find_exposed(look([*self.items, *own]), roots, self.whom):
            return exposed
        for root in roots if self.with_code else ():
            if root.theirs and (found := linked(root.path, self.whom)):
                return Exposure(Item("module", found[0], _LINK_HINT), found[1], root)
        return None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Trust:
        """Raises ValueError, LookupError or TypeError for what `to_json` did not make."""
        data: dict[str, Any] = json.loads(text)
        return cls(
            tuple((str(path), str(what), bool(theirs)) for path, what, theirs in data["writable"]),
            ProcessUser(int(data["whom"]["uid"]), tuple(map(int, data["whom"]["groups"]))),
            tuple(Item(**item) for item in data["items"]),
            bool(data["with_code"]),
        )
