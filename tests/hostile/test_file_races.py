"""A process that swaps a folder and a link that leads out of the workspace, while clients read, write, pack
and unpack over HTTP: none of them gets out. `--fuzz-seconds 60` is the figure that has to hold."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tarfile
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.hostile.file_doors import PATIENCE, SECRET, beside_a_secret, peer
from tests.project.checkout import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    async with beside_a_secret(tmp_path_factory.mktemp("files")) as running:
        yield running


@pytest.mark.timeout(0)
async def test_a_process_that_swaps_links_leads_nobody_out(
    server: TestServer, request: pytest.FixtureRequest
) -> None:
    """--fuzz-seconds=60 for the whole of it."""
    workspace = server.workspace
    (workspace / "swap").mkdir()
    (workspace / "swap/canary").write_bytes(b"inside")
    (workspace / "other").symlink_to("../secret")
    swapper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.files.swapper", str(workspace)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    until_s = time.monotonic() + request.config.getoption("--fuzz-seconds")
    outcomes = await asyncio.gather(
        *(read_on(server, until_s) for _ in range(2)),
        *(write_on(server, until_s) for _ in range(2)),
        pack_on(server, until_s),
        unpack_on(server, until_s),
    )
    told, _ = await swapper.communicate(b"")
    print("swaps", int(told), "outcomes", outcomes)
    assert int(told) > 0
    statuses = {status for each in outcomes for status in each}
    assert statuses <= {200, 201, 400, 403, 404, 503}
    assert statuses & {200, 201}
    assert [each.name for each in (workspace.parent / "secret").iterdir()] == ["canary"]
    assert (workspace.parent / "secret/canary").read_bytes() == SECRET


async def read_on(server: TestServer, until_s: float) -> dict[int, int]:
    counts: dict[int, int] = {}
    async with peer(server) as client:
        while time.monotonic() < until_s:
            got = await client.ask("GET", "/v1/files/swap/canary")
            assert SECRET not in got.body
            counts[got.status] = counts.get(got.status, 0) + 1
    return counts


async def write_on(server: TestServer, until_s: float) -> dict[int, int]:
    counts: dict[int, int] = {}
    async with peer(server) as client:
        while time.monotonic() < until_s:
            for path in ("swap/canary", "swap/new/deep/file", "other/canary"):
                got = await client.ask("PUT", f"/v1/files/{path}", b"inside")
                counts[got.status] = counts.get(got.status, 0) + 1
    return counts


async def pack_on(server: TestServer, until_s: float) -> dict[int, int]:
    """Each download has a connection: one that cannot be whole is cut."""
    counts: dict[int, int] = {}
    while time.monotonic() < until_s:
        async with peer(server) as client:
            await client.send(client.head("GET", "/v1/files/swap?archive=tar", Connection="close"))
            got = await client.begun()
            with contextlib.suppress(ConnectionError):
                assert SECRET not in await asyncio.wait_for(client.reader.read(), PATIENCE)
            counts[got.status] = counts.get(got.status, 0) + 1
    return counts


async def unpack_on(server: TestServer, until_s: float) -> dict[int, int]:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as packed:
        for name in ("swap/canary", "swap/unpacked/deep/file", "other/canary", "canary", "unpacked"):
            (member := tarfile.TarInfo(name)).size = len(b"inside")
            packed.addfile(member, io.BytesIO(b"inside"))
    counts: dict[int, int] = {}
    async with peer(server) as client:
        while time.monotonic() < until_s:
            for path in ("", "swap", "other"):
                got = await client.ask("PUT", f"/v1/files/{path}?archive=tar", data.getvalue())
                counts[got.status] = counts.get(got.status, 0) + 1
    return counts
