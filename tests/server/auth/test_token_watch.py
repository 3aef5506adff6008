"""What is said of the token's file without anybody asking, and what the next server is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mhnos_runtime.server.auth.token import ensure_token, read_token, rotate_token
from mhnos_runtime.server.auth.token_store import Known, TokenStore, learn
from mhnos_runtime.server.auth.token_watch import REPORT_SECONDS, TokenWatch
from mhnos_runtime.testing import TestServer
from tests.server.client import eventually


def test_what_is_told_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = ensure_token(tmp_path / "state")
    caplog.set_level("INFO")
    told: list[Known | None] = []
    now_s = 0.0
    watch = TokenWatch(TokenStore(path, learn(path)), told.append, lambda: now_s)
    watch.look()
    assert told == []
    for _ in range(1000):
        path.chmod(0o644)
        watch.look()
        path.chmod(0o600)
        watch.look()
    assert [known.exposed for known in told if known] == [True]
    assert [record.msg for record in caplog.records] == ["the token's file is not fit"]
    rotate_token(path.parent)
    watch.look()
    assert [known.exposed for known in told if known] == [True, False]
    now_s += REPORT_SECONDS
    watch.look()
    assert [record.msg for record in caplog.records][1:] == ["the token's file is fit again"]
    path.unlink()
    watch.look()
    assert told[2:] == [None]


def status(server: TestServer, token: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{server.url}/nothing", headers={"Authorization": f"Bearer {token}"})
    try:
        urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        return error.code, str(json.load(error)["error"])
    raise AssertionError("nothing was there")


async def lets_in(server: TestServer, token: str) -> bool:
    return (await asyncio.to_thread(status, server, token))[0] == 404


async def test_a_changed_mode_locks_nobody_out_over_restarts_and_reloads(
    tmp_path: Path,
) -> None:
    async with TestServer(tmp_path) as server:
        token = server.token
        (tmp_path / "state" / "token").chmod(0o644)
        assert await lets_in(server, token)

        async def reported() -> bool:
            return "the token's file is not fit" in server.log.read_text()

        await eventually(reported)
        assert "can be read by others (mode 0644)" in server.log.read_text()
        assert "token --rotate makes a new one" in server.log.read_text()
        assert token not in server.log.read_text()
        before = server.server_pid()
        os.kill(before, signal.SIGKILL)

        async def restarted() -> bool:
            return server.server_pid() != before

        await eventually(restarted)
        assert await lets_in(server, token)
        command = [sys.executable, "-m", "mhnos_runtime", "reload", "--state-dir", str(server.state_dir)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True)
        assert done.returncode == 0
        assert await lets_in(server, token)
        shown = [sys.executable, "-m", "mhnos_runtime", "token", "--state-dir", str(server.state_dir)]
        said = await asyncio.to_thread(subprocess.run, shown, capture_output=True, text=True)
        assert said.returncode == 1
        assert "can be read by others (mode 0644)" in said.stderr
        assert "others may know this token" in said.stderr
        rotated = await asyncio.to_thread(
            subprocess.run, [*shown, "--rotate"], capture_output=True, text=True
        )
        assert await lets_in(server, rotated.stdout.strip())
        assert not await lets_in(server, token)


async def test_one_who_is_locked_out_is_told_the_truth(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        token = server.token
        (tmp_path / "state" / "token").unlink()
        code, said = await asyncio.to_thread(status, server, token)
        assert code == 401
        assert said == "No token is in force: its file cannot be used"
        new = await asyncio.to_thread(rotate_token, tmp_path / "state")
        assert await lets_in(server, new)


async def test_a_start_refuses_a_token_that_others_may_know(tmp_path: Path) -> None:
    """It is not rotated: it may be one that an operator has just put there with a wrong mode."""
    path = await asyncio.to_thread(ensure_token, tmp_path / "state")
    token = path.read_text().strip()
    path.chmod(0o644)
    with pytest.raises(RuntimeError, match=r"can be read by others \(mode 0644\)"):
        async with TestServer(tmp_path):
            pass
    path.chmod(0o600)
    assert await asyncio.to_thread(read_token, tmp_path / "state") == token
