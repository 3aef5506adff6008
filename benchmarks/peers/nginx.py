"""nginx as a server of files: sendfile for downloads, its WebDAV module for uploads. One process, as ours."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .base import Peer, Session, Unavailable

_CONFIG = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log /dev/null;
events {{ }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/root;
    location / {{ dav_methods PUT; create_full_put_path on; }}
  }}
}}
"""


class Nginx(Peer):
    name = "nginx"

    def start(self) -> None:
        """Raises Unavailable."""
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise Unavailable("no nginx on this machine")
        self._folder = tempfile.TemporaryDirectory(prefix="bench-nginx-")
        folder = Path(self._folder.name)
        self.root = folder / "root"
        self.root.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        (folder / "config").write_text(_CONFIG.format(port=self.port, folder=folder))
        self._server = subprocess.Popen(
            [program, "-p", folder, "-c", folder / "config"], stderr=subprocess.DEVNULL
        )
        self._wait_ready()

    def _wait_ready(self) -> None:
        while self._server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                time.sleep(0.01)
                continue
            return
        self._folder.cleanup()
        raise Unavailable("nginx did not start")

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait()
        self._folder.cleanup()

    def pids(self) -> list[int]:
        return [self._server.pid]

    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        """It starts no processes."""
        raise NotImplementedError
