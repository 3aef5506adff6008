"""Uploads by the clients of tus that people use, tus-js-client on Node.js and aiotus: over a network that
cuts their connections again and again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import aiotus
import pytest
import pytest_asyncio
import yarl

from mhnos_runtime.cli.node import find_npm
from mhnos_runtime.testing import TestServer
from tests.server.tus import Tus

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

MIB = 1 << 20
DATA = random.Random(3).randbytes(6 * MIB + 17)
SHA = hashlib.sha256(DATA).hexdigest()
PROGRAM = Path(__file__).with_name("tus_js")


class CuttingProxy:
    """Cuts each connection after so many bytes of what the client sends. cuts: how often it did."""

    def __init__(self, target: str, each: int) -> None:
        self._target = yarl.URL(target)
        self._each = each
        self.cuts = 0
        self.url = ""

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._target.host, self._target.port)
        back = asyncio.create_task(self._pass(up_reader, writer, None))
        with contextlib.suppress(OSError):
            await self._pass(reader, up_writer, self._each)
        back.cancel()
        for each in (writer, up_writer):
            each.transport.abort()
        await asyncio.gather(back, return_exceptions=True)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None
    ) -> None:
        passed = 0
        while data := await reader.read(1 << 16):
            passed += len(data)
            writer.write(data)
            await writer.drain()
            if most is not None and passed > most:
                self.cuts += 1
                return
        if most is None:
            writer.close()


@pytest_asyncio.fixture(loop_scope="module")
async def cutting(server: TestServer) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(server.url, MIB) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Node.js, and the program beside its packages, at the versions of the lock."""
    npm, why_not = find_npm()
    assert npm, why_not
    folder = tmp_path_factory.mktemp("tus-js")
    for path in PROGRAM.iterdir():
        shutil.copy(path, folder)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline"]
    done = subprocess.run([*npm, "ci", *options], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    node = npm[0] if len(npm) > 1 else shutil.which("node")
    assert node is not None
    return node, folder / "upload.mjs"


async def run(program: tuple[str, Path], **options: object) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *map(str, program),
        json.dumps(options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_tus_js_client_over_cut_connections(
    server: TestServer, cutting: CuttingProxy, program: tuple[str, Path], source: Path
) -> None:
    result = await run(
        program,
        endpoint=f"{cutting.url}/v1/uploads",
        token=server.token,
        file=str(source),
        path="/js/whole",
    )
    assert "error" not in result, result
    assert cutting.cuts >= 5
    assert sha(server.workspace / "js/whole") == SHA
    assert (server.workspace / "js/whole").stat().st_mtime_ns == 1_600_000_000_123_000_000
    assert (await Tus(server).head(result["url"].replace(cutting.url, ""))).headers["etag"] == result["etag"]


async def test_tus_js_client_goes_on_in_another_program(
    server: TestServer, program: tuple[str, Path], source: Path
) -> None:
    common = {"token": server.token, "file": str(source), "path": "/js/resumed", "chunkSize": MIB}
    first = await run(program, endpoint=f"{server.url}/v1/uploads", stopAt=2 * MIB, **common)
    assert first["stopped"] >= 2 * MIB
    assert not (server.workspace / "js/resumed").exists()
    second = await run(program, uploadUrl=first["url"], **common)
    assert second["url"] == first["url"]
    assert sha(server.workspace / "js/resumed") == SHA


async def test_tus_js_client_does_not_know_the_length(
    server: TestServer, program: tuple[str, Path], source: Path
) -> None:
    result = await run(
        program,
        endpoint=f"{server.url}/v1/uploads",
        token=server.token,
        file=str(source),
        path="/js/deferred",
        chunkSize=2 * MIB,
        deferred=True,
    )
    assert "error" not in result, result
    assert sha(server.workspace / "js/deferred") == SHA


async def test_tus_js_client_tells_a_refusal(
    server: TestServer, program: tuple[str, Path], source: Path
) -> None:
    result = await run(
        program,
        endpoint=f"{server.url}/v1/uploads",
        token=server.token,
        file=str(source),
        path="/../out",
    )
    assert "outside-workspace" in result["error"]


async def test_aiotus_over_cut_connections(server: TestServer, cutting: CuttingProxy) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    config = aiotus.RetryConfiguration(retry_attempts=40, max_retry_period_seconds=0.05)
    async with aiohttp.ClientSession() as session:
        where = await aiotus.upload(
            f"{cutting.url}/v1/uploads",
            io.BytesIO(DATA),
            {"path": b"/aio/whole"},
            session,
            config,
            headers,
            chunksize=700_000,
        )
        assert where is not None
        found = await aiotus.metadata(where, session, config, headers)
    assert found == {"path": b"/aio/whole"}
    assert cutting.cuts > 3
    assert sha(server.workspace / "aio/whole") == SHA
