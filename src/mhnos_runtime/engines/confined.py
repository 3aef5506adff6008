"""When root installs, npm and new engines run as a user of their own inside bubblewrap.

Knows bubblewrap's options and which of root's settings npm needs; knows no engine, and probes nothing.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhnos_runtime.errors import InstallFailed

_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--new-session", "--hostname", "mhnos"),
    *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108
)
_PATH = "/usr/local/bin:/usr/bin:/bin"
#: Variables that npm and its Node.js read besides npm_config_*: proxies, certificates, language.
_VARIABLES = frozenset(
    (
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "proxy", "lang", "lc_all", "tz"),
        *("node_extra_ca_certs", "node_use_system_ca", "node_tls_reject_unauthorized"),
        *("ssl_cert_file", "ssl_cert_dir"),
    )
)
#: Variables that name a file, which is copied.
_CERTIFICATES = frozenset(("node_extra_ca_certs", "ssl_cert_file", "npm_config_cafile"))
#: Variables with new values, since root's name files and folders of root.
_OWN = frozenset(("npm_config_userconfig", "npm_config_globalconfig", "npm_config_cache", "npm_config_tmp"))
_REFERENCE = re.compile(r"\$\{(\w+)\??\}")
_CAFILE = re.compile(r"^\s*cafile\s*=\s*\"?([^\"\n]+?)\"?\s*$", re.MULTILINE)
_GLOBAL = "--globalconfig="
#: seconds that killed processes may take to end on a busy machine
_GONE_SECONDS = 30.0
_LOOK_SECONDS = 0.02
# linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command with options for subprocess.Popen. passed: descriptors that it needs, closed at the end of
    the block."""

    argv: list[str]
    options: dict[str, Any]
    passed: tuple[int, ...] = ()

    def __enter__(self) -> Invocation:
        return self

    def __exit__(self, *_error: object) -> None:
        for fd in self.passed:
            os.close(fd)


def plain(argv: Sequence[str]) -> Invocation:
    """The command as the user who installs."""
    return Invocation([*argv], {})


@dataclass(frozen=True)
class Confined:
    """user: (uid, gid) that nobody else has. bubblewrap: its path, or "" where only the user separates.

    system: (path, link target or "") of visible folders. configuration: visible paths in /etc. options: more
    options of bubblewrap. filter: a system call filter in base64, or "".
    """

    user: tuple[int, int]
    bubblewrap: str = ""
    system: tuple[tuple[str, str], ...] = ()
    configuration: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    filter: str = ""

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        store: Path,
        writable: Sequence[Path],
        *,
        network: bool,
    ) -> Invocation:
        """The command as this user, who sees the store and can write in these folders of it only. Raises
        InstallFailed if the user cannot enter the store."""
        _check_open(store)
        options = {
            "user": self.user[0],
            "group": self.user[1],
            "extra_groups": [],
            "env": {"PATH": _PATH, **environment},
        }
        if not self.bubblewrap:
            return Invocation([*argv], {**options, "preexec_fn": _without_new_privileges})
        shown = [*self._shown(), "--ro-bind", str(store), str(store)]
        for folder in writable:
            shown += ["--bind", str(folder), str(folder)]
        command = [
            self.bubblewrap,
            *_NAMESPACES,
            *self.options,
            *(() if network else ("--unshare-net",)),
            *shown,
        ]
        command += ["--remount-ro", "/"]
        passed = (_filter(self.filter),) if self.filter else ()
        for fd in passed:
            command += ["--seccomp", str(fd)]
        return Invocation([*command, "--chdir", str(writable[0]), "--", *argv], options, passed)

    def _shown(self) -> Iterator[str]:
        for path, target in self.system:
            yield from ("--symlink", target, path) if target else ("--ro-bind", path, path)
        for path in self.configuration:
            yield from ("--ro-bind-try", path.rstrip("/"), path.rstrip("/"))

    def give(self, folder: Path, mode: int = 0o755) -> None:
        """Make a folder if it is missing, and give it to the user."""
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        os.chown(folder, *self.user)

    def end(self) -> None:
        """Kill all processes of the user with one signal, which no fork escapes (kill(2)). Raises
        InstallFailed if one does not end."""
        subprocess.run(
            ["/bin/sh", "-c", "kill -9 -1"],
            user=self.user[0],
            group=self.user[1],
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
        until = time.monotonic() + _GONE_SECONDS
        while running(self.user[0]):
            time.sleep(_LOOK_SECONDS)
            if time.monotonic() > until:
                raise InstallFailed(
                    f"processes of npm with uid {self.user[0]} do not end",
                    code="npm-failed",
                    hint=f"list them with ps -u {self.user[0]}, and end them",
                )

    def npm(self, command: Sequence[str], home: Path, tools: Path) -> tuple[list[str], dict[str, str]]:
        """npm's command and environment, with copies of files that only root can read: programs in `tools`,
        settings, which may contain credentials, in `home`. Raises InstallFailed for a missing program."""
        given = [self.readable(part, tools) if part.startswith("/") else part for part in command]
        own_global = next((part for part in command if part.startswith(_GLOBAL)), "").removeprefix(_GLOBAL)
        environment, global_file = _settings(os.environ, home, own_global)
        given = [part for part in given if not part.startswith(_GLOBAL)]
        for path in home.iterdir():
            path.chmod(0o400)
            os.chown(path, *self.user)
        return given + ([_GLOBAL + global_file] if global_file else []), environment

    def readable(self, program: str, tools: Path) -> str:
        """A path by which the user can read a program: its own in a system folder or an engine, else that of
        a copy; a script is copied with its package."""
        roots = [root for root, _target in self.system] or ["/usr", "/bin"]
        roots.append(str(tools.parents[1]))
        if any(program.startswith(root + "/") for root in roots):
            return program
        path = Path(program)
        tools.mkdir(mode=0o755, exist_ok=True)
        tools.chmod(0o755)
        try:
            if path.suffix == ".js":
                package = path.parents[1]
                copy = tools / package.name
                shutil.copytree(package, copy, symlinks=True, dirs_exist_ok=True)
                _open_up(copy)
                return str(copy / path.relative_to(package))
            shutil.copyfile(path, tools / path.name)
            (tools / path.name).chmod(0o755)
        except FileNotFoundError as error:
            raise InstallFailed(f"npm cannot be started: {error}", code="npm-missing") from None
        return str(tools / path.name)


def running(uid: int) -> list[int]:
    """OS pids of a user's processes, without zombies."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                rows = dict(
                    row.split(":", 1) for row in Path("/proc", name, "status").read_text().splitlines()
                )
                if int(rows["Uid"].split()[0]) == uid and rows["State"].split()[0] not in "ZX":
                    found.append(int(name))
    return found


def _without_new_privileges() -> None:
    """As bubblewrap does: set-user-ID programs give the user no privileges."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _filter(program: str) -> int:
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    os.write(fd, base64.b64decode(program))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _settings(variables: Mapping[str, str], home: Path, own_global: str) -> tuple[dict[str, str], str]:
    """(environment, path of the machine's settings or ""), with copies in `home`."""
    by_name = {name.lower(): value for name, value in variables.items()}
    user_file = by_name.get("npm_config_userconfig") or os.path.join(os.path.expanduser("~"), ".npmrc")
    machine = by_name.get("npm_config_globalconfig") or own_global or "/etc/npmrc"
    texts = {".npmrc": _text(user_file), "npmrc": _text(machine)}
    named = {name for text in texts.values() for name in _REFERENCE.findall(text)}
    kept = {
        name: value
        for name, value in variables.items()
        if name in named
        or name.lower() in _VARIABLES
        or (name.lower().startswith("npm_config_") and name.lower() not in _OWN)
    }
    for text in reversed(texts.values()):
        for path in _CAFILE.findall(text):
            if "npm_config_cafile" not in by_name:
                kept["npm_config_cafile"] = path
    for name, value in kept.items():
        if name.lower() in _CERTIFICATES and os.path.isfile(value):
            copy = home / f"{name.lower()}.pem"
            shutil.copyfile(value, copy)
            kept[name] = str(copy)
    for name, text in texts.items():
        if text:
            (home / name).write_text(text, errors="surrogateescape")
    return {**kept, "HOME": str(home), "TMPDIR": str(home)}, str(home / "npmrc") if texts["npmrc"] else ""


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="surrogateescape")
    return ""


def _open_up(folder: Path) -> None:
    """Make it readable for everybody, as in a system folder."""
    for where, _folders, files in os.walk(folder):
        os.chmod(where, 0o755)  # noqa: S103 - readable by everybody
        for name in files:
            path = os.path.join(where, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)


def _check_open(folder: Path) -> None:
    for each in (folder, *folder.resolve().parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            raise InstallFailed(
                f"engines_dir {folder} is behind {each}, which only root can enter; "
                "npm and processes run as other users",
                code="engines-dir",
                hint=f"choose another folder with MHNOS_ENGINES_DIR, or chmod o+x {each}",
            )
