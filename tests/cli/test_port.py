"""`port`, and the ports that `ps` shows, of a process that serves."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

from mhnos_runtime.testing import TestServer
from tests.cli.console import Console, command

KIND = """
[kinds.files]
description = "the workspace as a web site"
argv = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "{port:http}"]
ready = { url = "http://127.0.0.1:{port:http}/" }
"""


async def test_a_process_that_serves_is_reached_by_what_port_prints(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(KIND)
    async with TestServer(tmp_path, "--config", str(tmp_path / "config.toml")) as server:
        env = {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url, "NO_COLOR": "1"}
        (server.workspace / "hello.txt").write_text("hello")
        async with Console("run", "--name", "site", "files", env=env) as terminal:
            await terminal.until(b"[listening: http http://127.0.0.1:")
            code, out, _ = await command("port", "site", "http", env=env)
            url = out.decode().strip()
            assert (code, url.startswith("http://127.0.0.1:")) == (0, True)

            def fetched() -> bytes:
                with urllib.request.urlopen(f"{url}/hello.txt", timeout=10) as response:
                    return bytes(response.read())

            assert await asyncio.to_thread(fetched) == b"hello"
            assert (await command("port", "site", env=env))[1].decode() == f"http -> {url}\n"
            assert (await command("ps", env=env))[1].decode().splitlines()[1].endswith(f"http {url}")
            code, _, err = await command("port", "site", "ftp", env=env)
            assert (code, err.splitlines()[1]) == (1, b"hint: it has: http")
            await command("stop", "site", env=env)
            assert await terminal.exit_code() == 143
