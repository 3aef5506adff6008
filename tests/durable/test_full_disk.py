"""The state directory full: what runs runs on, and what cannot start says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.client import RequestFailed
from tests.durable.scene import Assembler, client_of, expected_sha, kill_server, server_in, spawn_writer


@pytest.fixture
def small_state(tmp_path: Path) -> Iterator[Path]:
    """A directory whose `state` has room for three processes."""
    state = tmp_path / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m,mode=700", "tmpfs", str(state)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", "-l", str(state)], check=True)


async def test_a_full_state_directory(small_state: Path) -> None:
    async with server_in(small_state) as server, client_of(server) as runtime:
        process = await spawn_writer(runtime, server, "full", 256)
        assembling = asyncio.create_task(Assembler(process).run())
        others = [await runtime.spawn("shell", "cat", pty=False) for _ in range(2)]
        with pytest.raises(RequestFailed) as caught:
            await runtime.spawn("shell", "cat", pty=False)
        assert caught.value.code == "disk-full"
        with contextlib.suppress(OSError):
            (server.state_dir / "filler").write_bytes(b"x" * 8_000_000)
        await process.write("x")
        await kill_server(server)
        assert await assembling == expected_sha("full", 256)
        assert (await process.wait()).code == 0
        await others[0].write("still here\n")
        item = await anext(others[0].output())
        assert getattr(item, "data", b"") == b"still here\n"
        (server.state_dir / "filler").unlink()
        for other in others:
            await other.close_stdin()
            assert (await other.wait()).code == 0
