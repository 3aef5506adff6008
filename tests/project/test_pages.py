"""What docs/how-to/pages.md shows works as it stands, in Node.js, which has fetch and WebSocket as browsers
do but lets every origin read: the headers that browsers go by are in tests/server/http/test_pages.py."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
from pathlib import Path

import pytest

from mhnos_runtime.cli.node import find_node
from mhnos_runtime.client import connect
from mhnos_runtime.testing import TestServer
from tests.project.checkout import ROOT

PAGE = (ROOT / "docs" / "how-to" / "pages.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"^```js\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PATIENCE_S = 60
LINES = 60_000
WRITE = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; done"


@pytest.fixture
def node() -> str:
    path, why_not = find_node()
    return path or pytest.skip(why_not)


async def started(node: str, script: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        node, "-e", f"{CODE}\n{script}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def ran(node: str, script: str) -> str:
    process = await started(node, script)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err.decode()
    return out.decode().removesuffix("\n")


async def test_a_page_tells_a_wrong_token_from_no_server(node: str, tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        asked = [(server.url, server.token), (server.url, "wrong"), ("http://127.0.0.1:1", server.token)]
        each = f"for (const each of {json.dumps(asked)}) console.log(await whyNot(...each))"
        script = f"(async () => {{ {each} }})()"
        said = await ran(node, script)
    assert said.split("\n") == ["", "unauthorized", "unreachable"]


async def test_a_page_goes_on_where_it_was(node: str, tmp_path: Path) -> None:
    """Over a server that is killed in the middle: every byte once."""
    async with TestServer(tmp_path) as server, connect(server.url, server.token) as runtime:
        process = await runtime.spawn("shell", WRITE, pty=False)
        script = f"""
            let bytes = 0;
            const hash = require("crypto").createHash("sha256");
            const show = (piece) => {{ bytes += piece.length; hash.update(piece); console.error("some"); }};
            follow({json.dumps(server.url)}, {json.dumps(server.token)}, {process.pid}, show)
              .then((over) => console.log(bytes, hash.digest("hex"), over.type, over.code));
        """
        page = await started(node, script)
        assert page.stderr is not None
        assert await asyncio.wait_for(page.stderr.readline(), PATIENCE_S) == b"some\n"
        os.kill(server.server_pid(), signal.SIGKILL)
        out, _ = await asyncio.wait_for(page.communicate(), PATIENCE_S)
    wanted = b"".join(b"line %d\n" % (number + 1) for number in range(LINES))
    assert out.decode().split() == [str(len(wanted)), hashlib.sha256(wanted).hexdigest(), "exit", "0"]


async def test_a_page_gives_up_where_its_token_is_wrong(node: str, tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        url = json.dumps(server.url)
        script = f"follow({url}, 'wrong', 1000, () => 0).catch((error) => console.log(error.message))"
        assert await ran(node, script) == "unauthorized"
