"""A Debian of its own that boots systemd (systemd-nspawn), without a network, and commands inside it.

Knows debootstrap, nspawn and namespaces; not what is installed there. Needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.packages.wheel import run

BOOT_S = 60.0
COMMAND_S = 120.0
SUITE = "bookworm"
#: What a fresh server has, and Python.
PACKAGES = {
    "machine": "systemd,systemd-sysv,dbus,python3,ca-certificates,iproute2,procps",
    "image": "python3,python3-venv,ca-certificates",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mirror() -> str:
    """Where this machine takes its packages from."""
    said = run(
        ["apt-get", "indextargets", "--format", "$(SITE)", f"Codename: {SUITE}", "Component: main"], Path("/")
    )
    return said.splitlines()[0]


def base_system(cache: Path, name: str) -> Path:
    """A folder with a minimal Debian, made once."""
    folder = cache / f"{SUITE}-{name}"
    with locked(cache / f"{SUITE}-{name}.lock"):
        if not folder.exists():
            draft = folder.with_suffix(".new")
            clear(draft)
            include = f"--include={PACKAGES[name]}"
            # It is made again after a crash of the machine, so nothing has to reach the disk soon.
            quick = {**os.environ, "DPKG_FORCE": "unsafe-io"}
            run(["debootstrap", "--variant=minbase", include, SUITE, draft, mirror()], cache, quick)
            for waste in (*draft.glob("var/cache/apt/archives/*.deb"), *draft.glob("var/lib/apt/lists/*_*")):
                waste.unlink()
            draft.rename(folder)
    return folder


def clear(folder: Path) -> None:
    """Remove what an interrupted run left. What it had mounted there, such as /proc, goes first: to remove
    files below that would be to remove this machine's."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mounted in sorted((path for path in mounts if path.startswith(f"{folder}/")), reverse=True):
        run(["umount", mounted], folder.parent)
    if folder.exists():
        shutil.rmtree(folder)


class Machine:
    """Use as a context manager. root: its file system, as this machine sees it. network: this machine's, else
    none but loopback."""

    def __init__(self, base: Path, folder: Path, *, network: bool = False) -> None:
        self.root = folder / "root"
        self._network = network
        self._log = folder / "console.log"
        self._nspawn: subprocess.Popen[bytes] | None = None
        run(["cp", "-a", "--reflink=auto", base, self.root], folder)

    def __enter__(self) -> Self:
        command = ["setpriv", "--pdeathsig=TERM", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]
        command += [] if self._network else ["--private-network"]
        # nspawn's own filter lacks these; a real machine has none.
        command += ["--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"]
        command += [
            f"--machine=mhnos-{os.getpid()}-{int(self._network)}",
            f"--directory={self.root}",
            "--boot",
        ]
        # A real machine's /proc/sys is writable, and bubblewrap sets a limit of its own namespace there.
        env = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self.wait_until_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nspawn is None:
            return
        self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()

    def _leader(self) -> int:
        """The OS pid of its PID 1, or 0."""
        assert self._nspawn is not None
        pid = self._nspawn.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return 0

    def wait_until_up(self) -> None:
        end = time.monotonic() + BOOT_S
        while True:
            if self._leader():
                done = self.call("systemctl", "is-system-running")
                if done.stdout.strip() in ("running", "degraded"):
                    return
            assert time.monotonic() < end, self._log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)

    def reboot(self) -> None:
        """An orderly end of everything, and a new boot of what is on its disk."""
        assert self._nspawn is not None
        self.call("systemctl", "--no-block", "poweroff")
        self._nspawn.wait(BOOT_S)
        self.__enter__()

    def command(self, *words: str) -> list[str]:
        """What runs `words` inside, as its root, with a clean environment."""
        enter = [
            "nsenter",
            "--target",
            str(self._leader()),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
        ]
        return [
            *enter,
            "--root",
            "--wd",
            "--",
            "env",
            "-i",
            f"PATH={PATH}",
            "HOME=/root",
            "LANG=C.UTF-8",
            *words,
        ]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL
        )

    def run(self, *words: str) -> str:
        """What it wrote, when it ended with 0."""
        done = self.call(*words)
        assert done.returncode == 0, f"{words}: {done.returncode} {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def files(self, *folders: str) -> set[str]:
        """Every path below some folders, without caches of Python and of the package manager."""
        found = set()
        for folder in folders:
            for path in (self.root / folder.lstrip("/")).rglob("*"):
                name = str(path.relative_to(self.root))
                if "__pycache__" not in name and not name.startswith(("var/lib/dpkg", "var/lib/systemd")):
                    found.add(name)
        return found
