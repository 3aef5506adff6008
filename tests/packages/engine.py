"""A Docker engine of its own: Debian's dockerd on its own data directory, socket and bridge; images for it.

Knows dockerd, its client and compose; not what runs in the containers. Needs root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.packages.machine import base_system, locked, mirror
from tests.packages.wheel import ROOT, run

START_S = 180.0
BUILD_S = 900.0
#: Layers of earlier runs, from which the next one builds quickly.
KEPT_HOURS = 72
BRIDGE = "mhnos-test0"
#: Neither Docker's own default nor a usual home network.
ADDRESS = "10.213.255.1/24"
POOL = "base=10.213.0.0/17,size=24"
#: Where compose is from when the machine's distribution has only its first version.
LATER_SUITE = "trixie"
BASE_IMAGE = "mhnos-test-base"
IMAGE = "mhnos-test-runtime"


class Engine:
    """Use as a context manager. Layers stay in the cache for some days, for the next run."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._run = Path(tempfile.mkdtemp(prefix="mhnos-docker-", dir="/run"))  # paths of sockets are short
        self._daemon: subprocess.Popen[bytes] | None = None
        self._log = self._run / "dockerd.log"
        self.env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("MHNOS_", "DOCKER_"))
            },
            "DOCKER_HOST": f"unix://{self._run}/socket",
            "DOCKER_CONFIG": str(self._run / "config"),
            "DOCKER_BUILDKIT": "0",
        }

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove_containers()
        self._end()

    def _start(self) -> None:
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
        run(["ip", "link", "add", "name", BRIDGE, "type", "bridge"], self._run)
        run(["ip", "address", "add", ADDRESS, "dev", BRIDGE], self._run)
        run(["ip", "link", "set", BRIDGE, "up"], self._run)
        plugins = self._run / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(compose_plugin(self._cache))
        # Ports are published by a proxy, so that no rule of the machine's firewall is touched. It ends with
        # the tests, however those end.
        command = ["setpriv", "--pdeathsig=TERM", "dockerd", f"--bridge={BRIDGE}"]
        command += ["--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        command += [f"--host=unix://{self._run}/socket", f"--pidfile={self._run}/pid"]
        command += [f"--exec-root={self._run}/exec", f"--data-root={self._cache}/docker"]
        command += [f"--default-address-pool={POOL}"]
        end = time.monotonic() + START_S
        while self.call("version").returncode != 0:
            assert time.monotonic() < end, self._log.read_text()[-3000:]
            # It gives up by itself when its databases wait for a busy disk.
            if self._daemon is None or self._daemon.poll() is not None:
                with self._log.open("ab") as log:
                    self._daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            time.sleep(0.1)
        self.remove_containers()
        self.call("image", "prune", "--force", f"--filter=until={KEPT_HOURS}h")

    def _end(self) -> None:
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
        for mounted in _mounts_below(self._run):  # a network namespace, which dockerd leaves
            run(["umount", mounted], self._run)
        shutil.rmtree(self._run)

    def remove_containers(self) -> None:
        for what in (["rm", "--force", "--volumes"], ["volume", "rm", "--force"]):
            listing = ["ps", "--all", "--quiet"] if what[0] == "rm" else ["volume", "ls", "--quiet"]
            found = self.call(*listing).stdout.split()
            if found:
                self.call(*what, *found)
        self.call("network", "prune", "--force")

    def call(
        self, *words: str | Path, timeout: float = 120, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`docker` with these words."""
        return subprocess.run(
            ["docker", *words],
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def run(self, *words: str | Path, timeout: float = 120) -> str:
        """What it wrote to stdout, when it ended with 0."""
        done = self.call(*words, timeout=timeout)
        assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.run("inspect", name))
        assert isinstance(found, dict)
        return found

    def base_image(self) -> str:
        """A Debian with Python that trusts whom this machine trusts; no registry of images is needed."""
        if self.call("image", "inspect", BASE_IMAGE).returncode == 0:
            return BASE_IMAGE
        base = base_system(self._cache, "image")
        archive = self._cache / "image.tar"
        # As the slim images of Debian are made.
        left_out = [f"--exclude=./usr/share/{name}/*" for name in ("doc", "locale", "man", "info")]
        run(["tar", *left_out, "-C", base, "-cf", archive, "."], self._cache)
        self.run("import", archive, f"{BASE_IMAGE}:plain")
        archive.unlink()
        context = self._run / "base"
        context.mkdir()
        shutil.copy(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), context / "ca.crt")
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        lines = [f"FROM {BASE_IMAGE}:plain", f"COPY ca.crt {bundle}"]
        lines += [f"ENV PIP_CERT={bundle} NODE_EXTRA_CA_CERTS={bundle} npm_config_cafile={bundle}"]
        (context / "Dockerfile").write_text("\n".join(lines))
        self.run("build", "--quiet", "--tag", BASE_IMAGE, context)
        return BASE_IMAGE

    def build(self, tag: str = IMAGE, source: Path = ROOT, **arguments: str) -> str:
        """The runtime's image, of a checkout."""
        arguments["BASE"] = self.base_image()
        words = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        file = ROOT / "packaging" / "docker" / "Dockerfile"
        self.run("build", "--network=host", *words, "--file", file, "--tag", tag, source, timeout=BUILD_S)
        return tag

    def build_from(self, lines: list[str], tag: str, context: Path = ROOT) -> str:
        file = self._run / "Dockerfile"
        file.write_text("\n".join(lines))
        self.run("build", "--network=host", "--file", file, "--tag", tag, context, timeout=BUILD_S)
        return tag


def _mounts_below(folder: Path) -> list[str]:
    """The innermost first."""
    paths = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [path for path in reversed(paths) if path.startswith(f"{folder}/")]


def compose_plugin(cache: Path) -> Path:
    """`docker compose`: the machine's, or the one of a later Debian, which brings no dependency."""
    for folder in ("/usr/libexec", "/usr/lib", "/usr/local/lib", "/usr/local/libexec"):
        found = Path(folder) / "docker" / "cli-plugins" / "docker-compose"
        if found.exists():
            return found
    plugin = cache / "compose" / "usr" / "libexec" / "docker" / "cli-plugins" / "docker-compose"
    with locked(cache / "compose.lock"):
        if not plugin.exists():
            _fetch("docker-compose", cache / "compose")
    return plugin


def _fetch(package: str, folder: Path) -> None:
    """Unpack one package of the later suite, without a change to the machine's own sources."""
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (folder / "sources").write_text(f"deb [signed-by={key}] {mirror()} {LATER_SUITE} main\n")
    options = [
        f"-oDir::Etc::sourcelist={folder}/sources",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::lists={folder}/lists",
        f"-oDir::Cache={folder}",
        "-oAPT::Sandbox::User=root",
    ]
    run(["apt-get", *options, "update"], folder)
    run(["apt-get", *options, "download", package], folder)
    (archive,) = folder.glob(f"{package}_*.deb")
    run(["dpkg-deb", "--extract", archive, folder], folder)
