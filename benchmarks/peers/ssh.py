"""OpenSSH: an sshd of its own on a loopback port, as the current user. The client is driven by pipes."""

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .base import Peer, Session, Unavailable

_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
LogLevel ERROR
"""


class SshSession(Session):
    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()

    def fileno(self) -> int:
        return self._output

    def write(self, data: bytes) -> None:
        os.write(self._input, data)

    def read(self) -> bytes:
        data = os.read(self._output, 65536)
        if not data:
            raise ConnectionError("ssh has ended")
        return data

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


class OpenSsh(Peer):
    name = "openssh"

    def start(self) -> None:
        sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
        if sshd is None or shutil.which("ssh") is None:
            raise Unavailable("no sshd on this machine")
        if os.getuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd wants it when it runs as root
        self._folder = tempfile.TemporaryDirectory(prefix="bench-ssh-")
        folder = Path(self._folder.name)
        _key(folder / "host")
        _key(folder / "user")
        self._port = _free_port()
        (folder / "config").write_text(_CONFIG.format(port=self._port, folder=folder))
        self._server = subprocess.Popen(
            [sshd, "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL
        )
        self._wait_ready()

    def _wait_ready(self) -> None:
        while self._server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except ConnectionRefusedError:
                continue
            return
        self._folder.cleanup()
        raise Unavailable("sshd did not start")

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait()
        self._folder.cleanup()

    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        folder = Path(self._folder.name)
        options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "Compression=no",
            "LogLevel=ERROR",
        ]
        # Delays keys on purpose where it exists; off, since that favours OpenSSH.
        options += ["IgnoreUnknown=ObscureKeystrokeTiming", "ObscureKeystrokeTiming=no"]
        command = ["ssh", "-F", "none", "-tt" if pty else "-T", "-e", "none", "-i", str(folder / "user")]
        command += [word for option in options for word in ("-o", option)]
        where = f"{getpass.getuser()}@127.0.0.1"
        return SshSession([*command, "-p", str(self._port), where, "exec " + shlex.join(argv)])
