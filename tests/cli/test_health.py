"""`health` with a runtime, without one, and with one that appears while it waits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.cli.console import command

pytestmark = pytest.mark.timeout(90)


async def test_it_says_whether_the_runtime_serves(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        env = {"MHNOS_STATE_DIR": str(server.state_dir)}
        code, out, _ = await command("health", "--wait", "20", env=env)
        assert (code, out.endswith(b" s, 0 processes\n")) == (0, True)
        _, told, _ = await command("health", "--json", env=env)
        assert json.loads(told)["processes"]["active"] == 0
    code, out, err = await command("health", env=env)
    assert (code, out) == (1, b"")
    assert b"no runtime uses" in err


async def test_it_waits_for_one_that_starts(tmp_path: Path) -> None:
    env = {"MHNOS_STATE_DIR": str(tmp_path / "state")}
    asked = asyncio.create_task(command("health", "--wait", "60", env=env))
    async with TestServer(tmp_path):
        assert (await asked)[0] == 0


async def test_it_needs_no_certificate_authority(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=desk.example.com")
    made = await asyncio.create_subprocess_exec(
        "openssl", *request, "-keyout", key, "-out", certificate, stderr=asyncio.subprocess.DEVNULL
    )
    assert await made.wait() == 0
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key))
    async with TestServer(tmp_path, *flags) as server:
        assert server.url.startswith("https:")
        code, _, err = await command("health", "--wait", "20", env={"MHNOS_STATE_DIR": str(server.state_dir)})
        assert (code, err) == (0, b"")
        # Nor does a reload, which reads a renewed one; it had waited for an answer that it could trust.
        code, out, err = await command(
            "reload", "--wait", "50s", env={"MHNOS_STATE_DIR": str(server.state_dir)}
        )
        assert (code, err) == (0, b"")
        assert out.startswith(b"reloaded in")
        # A session is not so easily satisfied.
        code, _, err = await command("ps", env={"MHNOS_STATE_DIR": str(server.state_dir)})
        assert code == 1
        assert b"its certificate is not trusted" in err
        assert b"SSL_CERT_FILE" in err
