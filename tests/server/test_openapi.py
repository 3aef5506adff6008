"""What the server says of its API, against what it does: schemathesis asks a real one for everything that is
described, rightly and wrongly."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import aiohttp
import pytest

from mhnos_runtime.testing import TestServer
from tests.server.test_doors import ROUTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
SEED = "20"
#: For each route; the whole takes some seconds.
EXAMPLES = "12"
#: Left out are those that want an error for each value outside the schema, want none for each inside it, or
#: do not know that too many wrong tokens are refused with 429.
CHECKS = (
    *(
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
    ),
    *("response_schema_conformance", "unsupported_method", "allow_header_conformance", "use_after_free"),
)


async def test_the_copy_in_the_docs_is_what_the_server_says(server: TestServer) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session,
        session.get(f"{server.url}/v1/openapi.json") as answer,
    ):
        assert await answer.text() == (ROOT / "docs/openapi.json").read_text(), "run `make docs`"
        made = await answer.json()
    described = {(method.upper(), path) for path, methods in made["paths"].items() for method in methods}
    rows = {(method, re.sub(r"\.\.\.}", "}", pattern)) for method, pattern, upgrade in ROUTES if not upgrade}
    assert described == rows


@pytest.mark.timeout(240)
async def test_the_server_does_what_it_says(server: TestServer, tmp_path: Path) -> None:
    (server.workspace / "0").write_bytes(b"a file that is found by name")
    (tmp_path / "schemathesis.toml").touch()
    tester = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/v1/openapi.json"),
        *("-H", f"Authorization: Bearer {server.token}", "--checks", ",".join(CHECKS), "--no-color"),
        *("--phases", "coverage,fuzzing", "--seed", SEED, "--max-examples", EXAMPLES, "--warnings", "off"),
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.server.media_types", "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await tester.communicate()
    assert tester.returncode == 0, told.decode()
    assert "defect in a request" not in server.log.read_text()
