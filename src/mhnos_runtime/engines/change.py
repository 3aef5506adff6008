"""Installs, updates and removes engines, one command at a time. An unfinished installation is never visible:
it is made in a staging folder and renamed when it has been shown to work."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO

from mhnos_runtime.engines import custody, npm
from mhnos_runtime.engines.catalogue import Spec
from mhnos_runtime.engines.confined import Confined, Invocation, plain
from mhnos_runtime.engines.npm import Progress
from mhnos_runtime.engines.store import MARKER, Engine, EngineStore
from mhnos_runtime.engines.usage import users
from mhnos_runtime.errors import InstallFailed

#: seconds for the first start after an installation, on a slow disk
_FIRST_START_SECONDS = 60
#: The new version, and the one that processes may still use.
_KEPT_VERSIONS = 2
#: bytes of npm's list of installed packages; OpenClaw's is a tenth of this
_ACCOUNT_BYTES = 16 << 20
#: bytes of the last line that a program writes at its first start
_LINE_BYTES = 4096


class Change:
    """The right to change a store: a context manager that one command at a time can enter.

    Methods and entering raise InstallFailed, with code "engines-busy" if another command holds the lock.
    confined: the user of npm and of new engines, when root installs; the result is root's anyway.
    """

    def __init__(self, store: EngineStore, confined: Confined | None = None) -> None:
        self._store = store
        self._confined = confined
        self._lock_fd = -1
        self._staging = store.folder / ".staging"
        self._trash = store.folder / ".trash"
        self._cache = store.folder / ".npm-cache"

    def __enter__(self) -> Change:
        with _usable(self._store.folder):
            if not self._store.folder.is_dir():
                _make_public(self._store.folder)
            if why := self._store.distrusted():
                raise InstallFailed(
                    why, code="engines-dir", hint=f"chmod 755 {self._store.folder}, or choose one of your own"
                )
            self._lock_fd = self._lock()
            self._discard(self._staging, self._trash)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard(self._staging, self._trash)
        os.close(self._lock_fd)

    def install(
        self,
        name: str,
        npm_command: Sequence[str],
        node: str = "",
        progress: Callable[[Progress], None] = lambda _: None,
        *,
        stall_seconds: float = npm.STALL_SECONDS,
    ) -> Engine:
        """Install the pinned version; returns at once if it is installed. Of the older ones the latest stays
        until the next version comes, since processes may use it.

        npm_command: what runs npm. node: a Node.js in the range of the engine, if it has one; npm must run on
        it too.
        """
        spec = self._store.catalogue[name]
        found = self._store.find(name)
        if found is not None and self._store.is_current(found):
            return found
        if self._store.machine not in spec.package:
            made_for = " and ".join(spec.package)
            raise _no_build(spec, f"is made for {made_for}, and this machine is {self._store.machine}")
        with _usable(self._store.folder):
            self._check_space(spec)
            try:
                fetch = partial(self._fetch, npm_command, progress, stall_seconds)
                engine = self._make(spec, fetch, node)
            except InstallFailed as failed:
                if failed.code == "no-space":
                    self._discard(self._cache)
                raise
            self._discard(self._cache)
            for old in self._store.versions(name)[_KEPT_VERSIONS:]:
                if not users(old.folder):
                    self._throw_away(old.folder)
        return engine

    def remove(self, name: str) -> bool:
        """Remove all versions; whether there were any. Refuses while a process uses one of them."""
        folder = self._store.folder / name
        if not folder.exists():
            return False
        using = users(folder)
        if using:
            raise InstallFailed(
                f"{self._store.catalogue[name].title} is in use by pid " + ", ".join(map(str, using)),
                code="engine-in-use",
                hint="end these processes first; mhnos-runtime ps lists those of the runtime",
            )
        with _usable(folder):
            self._throw_away(folder)
        return True

    def _lock(self) -> int:
        path = self._store.folder / "lock"
        # npm inherits the descriptor, which must not be writable for it.
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise InstallFailed(
                f"another command is changing the engines in {self._store.folder}"
                + (f" (pid {holder})" if holder.isdigit() else ""),
                code="engines-busy",
                hint="wait until it has ended, then run the command again",
                retry=True,
            ) from None
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")
        return fd

    def _check_space(self, spec: Spec) -> None:
        free = os.statvfs(self._store.folder)
        free_bytes = free.f_bavail * free.f_frsize
        if free_bytes < spec.disk_bytes:
            raise InstallFailed(
                f"{spec.title} needs {spec.disk_bytes >> 20} MiB in {self._store.folder} "
                f"while it is installed; {free_bytes >> 20} MiB are free",
                code="no-space",
                hint="free some space, or choose another disk with MHNOS_ENGINES_DIR",
            )

    def _fetch(
        self,
        command: Sequence[str],
        progress: Callable[[Progress], None],
        stall_seconds: float,
        draft: Path,
        total: int,
    ) -> None:
        start, home = plain, self._staging / "npm"
        if self._confined is not None:
            confined = self._confined
            if self._cache.exists() and self._cache.stat().st_uid != confined.user[0]:
                self._discard(self._cache)  # another user's, who may not exist any more
            confined.give(self._cache)
            home.mkdir(0o700)  # before root's credentials are put there
            command, environment = confined.npm(command, home, self._staging / "tools")
            confined.give(home, 0o700)
            writable = (draft, self._cache, home)

            def start(argv: Sequence[str]) -> Invocation:
                return confined.start(argv, environment, self._store.folder, writable, network=True)

        try:
            npm.install(
                command,
                draft,
                cache=self._cache,
                total=total,
                progress=progress,
                keep_open=(self._lock_fd,),
                stall_seconds=stall_seconds,
                start=start,
            )
        finally:
            if self._confined is not None:
                self._confined.end()
                self._discard(home)

    def _make(self, spec: Spec, fetch: Callable[..., None], node: str) -> Engine:
        draft = self._staging / spec.name
        self._discard(draft)
        _make_public(draft)
        if self._confined is not None:
            self._confined.give(draft)
        for each, text in spec.manifests(self._store.machine).items():
            (draft / each).write_text(text)
            (draft / each).chmod(0o644)
        wanted = spec.packages(self._store.machine)
        fetch(draft=draft, total=len(wanted))
        custody.check(draft)
        absent = _absent(draft, wanted)
        if absent:
            raise _incomplete(spec, absent)
        program = draft / "node_modules" / spec.package[self._store.machine] / spec.program
        self._start_once(spec, draft, program, node)
        custody.take(draft)
        return self._put_in_place(spec, draft, program)

    def _start_once(self, spec: Spec, draft: Path, program: Path, node: str) -> None:
        """Check that it runs here. OpenClaw also completes its installation at its first start; later it
        cannot, since its folder is read-only and it runs as another user."""
        home = self._staging / "home"
        _make_public(home)
        try:
            if not spec.script:
                _check_format(program)
            with (
                tempfile.TemporaryFile(dir=self._staging) as told,
                self._first_start(draft, home, [node] if spec.script else [], program) as how,
            ):
                done = subprocess.run(
                    how.argv,
                    cwd=home,
                    stdin=subprocess.DEVNULL,
                    stdout=told,
                    stderr=told,
                    umask=0o022,
                    timeout=_FIRST_START_SECONDS,
                    check=False,
                    pass_fds=how.passed,
                    **how.options,
                )
                last = _last_line(told)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _no_build(spec, f"cannot be started on this machine: {error}") from None
        finally:
            if self._confined is not None:
                self._confined.end()
        if done.returncode:
            detail = last or f"it ended with {done.returncode}"
            raise _no_build(spec, f"cannot be started on this machine: {detail}")

    def _first_start(self, draft: Path, home: Path, interpreter: list[str], program: Path) -> Invocation:
        environment = {"HOME": str(home), "TMPDIR": str(home)}
        command = [*interpreter, str(program), "--version"]
        confined = self._confined
        if confined is None:
            path = os.environ.get("PATH", os.defpath)
            return Invocation(command, {"env": {"PATH": path, **environment}})
        confined.give(home)
        command = [*(confined.readable(node, self._staging / "tools") for node in interpreter), *command[-2:]]
        return confined.start(command, environment, self._store.folder, (home, draft), network=False)

    def _put_in_place(self, spec: Spec, draft: Path, program: Path) -> Engine:
        size = _size(draft)
        marker = {
            "name": spec.name,
            "version": spec.version,
            "machine": self._store.machine,
            "program": str(program.relative_to(draft)),
            "programBytes": program.stat().st_size,
            "sizeBytes": size,
            "installedAt": time.time(),
        }
        # Otherwise the marker could survive a loss of power that earlier files do not.
        os.sync()
        (draft / MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        (draft / MARKER).chmod(0o644)
        target = self._store.pinned_folder(spec.name)
        _make_public(target.parent)
        if target.exists():  # damaged, or it would have been found
            self._throw_away(target)
        draft.rename(target)
        engine = self._store.find(spec.name)
        if engine is None or engine.folder != target:
            raise _no_build(spec, "was installed and cannot be read back")
        return engine

    def _throw_away(self, folder: Path) -> None:
        """Remove it from its place at once, then from the disk."""
        _make_public(self._trash)
        folder.rename(self._trash / f"{folder.name}.{time.monotonic_ns()}")
        self._discard(self._trash)

    @staticmethod
    def _discard(*folders: Path) -> None:
        for folder in folders:
            # Unlike shutil.rmtree this removes trees of any depth, which npm or an engine may have made.
            with contextlib.suppress(OSError):
                subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Turns OSError about a folder into InstallFailed."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise npm.no_space(folder) from None
        raise InstallFailed(
            f"engines_dir {folder} cannot be used: {error.strerror or error}",
            code="engines-dir",
            hint="choose another folder with MHNOS_ENGINES_DIR",
        ) from None


def _make_public(folder: Path) -> None:
    """Make the folder and its missing parents, readable by everybody whatever the umask: processes may run as
    another user than the one who installs."""
    if folder.is_dir():
        return
    _make_public(folder.parent)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)


def _size(folder: Path) -> int:
    """Bytes on the disk."""
    return 512 * sum(
        os.stat(os.path.join(where, name), follow_symlinks=False).st_blocks
        for where, _folders, names in os.walk(folder)
        for name in names
    )


def _last_line(told: IO[bytes]) -> str:
    """The last line that a program wrote, however much it wrote."""
    told.seek(max(0, told.seek(0, os.SEEK_END) - _LINE_BYTES))
    lines = told.read(_LINE_BYTES).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _absent(draft: Path, wanted: Mapping[str, str]) -> list[str]:
    """Packages of the lock that npm did not install: it skips optional packages that it cannot get."""
    try:
        with (draft / "node_modules" / ".package-lock.json").open("rb") as file:
            installed = json.loads(file.read(_ACCOUNT_BYTES))["packages"]
        return [path for path, version in wanted.items() if installed.get(path, {}).get("version") != version]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return list(wanted)


def _check_format(program: Path) -> None:
    """Raises OSError for a file that is not a program of this machine: bubblewrap would give it to a shell
    (execvp(3)), which may take it for an empty script and succeed."""
    with program.open("rb") as file, open("/proc/self/exe", "rb") as own:
        theirs, ours = file.read(20), own.read(20)
    # Class, byte order and machine (elf(5)).
    same = theirs[:6] == ours[:6] and theirs[18:20] == ours[18:20]
    if not theirs.startswith(b"#!") and not same:
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC), str(program))


def _incomplete(spec: Spec, absent: Sequence[str]) -> InstallFailed:
    some = ", ".join(path.removeprefix("node_modules/") for path in absent[:3])
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    return InstallFailed(
        f"npm left out packages that {spec.title} needs: {some}{more}",
        code="npm-failed",
        hint="check omit, os, cpu and libc in `npm config list`, then run the command again",
    )


def _no_build(spec: Spec, detail: str) -> InstallFailed:
    return InstallFailed(
        f"{spec.title} {detail}",
        code="engine-platform",
        hint="everything else of the runtime works without it",
    )
