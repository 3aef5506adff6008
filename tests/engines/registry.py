"""A registry of packages that are made up, for the real npm, with the faults that real ones have."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from mhnos_runtime.engines import Spec

#: The package's program: says its version, or runs until its input ends.
SCRIPT = b'#!/bin/sh\n[ "$1" = --version ] && echo VERSION || read -r _\n'


@dataclass
class Package:
    """program: the content of bin/program."""

    name: str
    version: str
    program: bytes = SCRIPT
    cpu: list[str] = field(default_factory=list)
    filler_bytes: int = 0
    scripts: dict[str, str] = field(default_factory=dict)
    node: str = ""

    def platform(self) -> dict[str, Any]:
        """What a manifest and a lock say of where it runs."""
        return {
            **({"cpu": self.cpu} if self.cpu else {}),
            **({"engines": {"node": self.node}} if self.node else {}),
        }

    def tarball(self) -> bytes:
        manifest = {"name": self.name, "version": self.version, "scripts": self.scripts, **self.platform()}
        files = {
            "package/package.json": (json.dumps(manifest).encode(), 0o644),
            "package/bin/program": (self.program.replace(b"VERSION", self.version.encode()), 0o755),
        }
        if self.filler_bytes:
            files["package/filler"] = (bytes(self.filler_bytes), 0o644)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", compresslevel=0) as archive:
            for name, (content, mode) in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), mode
                archive.addfile(info, io.BytesIO(content))
        return out.getvalue()


class Registry:
    """Use as a context manager. fetched counts the tarballs that were asked for.

    gate: closed, tarballs wait for it (those named in `open_anyway` do not). altered, absent: names of
    packages that are served wrong or not at all. deaf: everything waits for the gate.
    """

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.open_anyway: set[str] = set()
        self.altered: set[str] = set()
        self.absent: set[str] = set()
        self.deaf = False
        self.authorizations: set[str | None] = set()
        self._tarballs: dict[str, dict[str, bytes]] = {}
        self._manifests: dict[str, dict[str, Any]] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, package: Package) -> dict[str, Any]:
        """Serve a package; returns its entry in a lock."""
        tarball = package.tarball()
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        self._tarballs.setdefault(package.name, {})[package.version] = tarball
        self._manifests.setdefault(package.name, {})[package.version] = {
            "name": package.name,
            "version": package.version,
            **package.platform(),
            "dist": {"tarball": f"{self.url}{package.name}/-/{package.version}.tgz", "integrity": integrity},
        }
        return {
            "version": package.version,
            "integrity": integrity,
            **({"hasInstallScript": True} if package.scripts else {}),
            **package.platform(),
        }

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.authorizations.add(request.headers["Authorization"])
        name, _, file = request.path.strip("/").partition("/-/")
        if self.deaf or (file and name not in self.open_anyway and not self.gate.is_set()):
            self.waiting.set()
            self.gate.wait()
        if name in self.absent or name not in self._manifests:
            self._send(request, 404, b"{}")
        elif not file:
            body = {"name": name, "versions": self._manifests[name], "dist-tags": {}}
            self._send(request, 200, json.dumps(body).encode())
        else:
            self.fetched[name] += 1
            tarball = self._tarballs[name][file.removesuffix(".tgz")]
            self._send(request, 200, tarball + b"x" if name in self.altered else tarball)

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # npm was killed meanwhile


def spec_of(
    registry: Registry,
    locks: Path,
    *packages: Package,
    name: str = "workerd",
    optional: bool = False,
    machines: tuple[str, ...] = ("x86_64", "aarch64"),
    disk_bytes: int = 1 << 20,
) -> Spec:
    """An engine whose lock has these packages; the first one is it."""
    entries = {f"node_modules/{each.name}": registry.add(each) for each in packages}
    field_name = "optionalDependencies" if optional else "dependencies"
    wants = {each.name: each.version for each in packages}
    package = {"name": f"test-engine-{name}", "private": True, field_name: wants}
    if optional:
        entries = {path: {**entry, "optional": True} for path, entry in entries.items()}
    root = {"name": package["name"], field_name: wants}
    lock = {
        "name": package["name"],
        "lockfileVersion": 3,
        "requires": True,
        "packages": {"": root, **entries},
    }
    (locks / name).mkdir(parents=True, exist_ok=True)
    (locks / name / "package.json").write_text(json.dumps(package))
    (locks / name / "package-lock.json").write_text(json.dumps(lock))
    own = dict.fromkeys(machines, packages[0].name)
    return Spec(name, "workerd", "the tests", own, "bin/program", disk_bytes, locks=locks)
