"""What docs/files.md says of bad input is what a real server answers."""

from __future__ import annotations

import asyncio
import http.client
import os
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.project.checkout import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("| input | outcome |")[2]


class Case(NamedTuple):
    """row: how its first cell begins."""

    row: str
    status: int
    code: str
    target: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


CASES = [
    Case("`..` above the top", 403, "outside-workspace", "out/passwd"),
    Case("`..` above the top", 403, "outside-workspace", "absolute"),
    Case("`..` above the top", 403, "outside-workspace", "out/new", "PUT", body=b"x"),
    Case("`..` above the top", 404, "not-found", "../x"),
    Case("`..` above the top", 404, "not-found", "%2e%2e/x"),
    Case("`..` above the top", 404, "not-found", "a%2fb"),
    Case("`..` above the top", 404, "not-found", "a%00"),
    Case("`..` above the top", 404, "not-found", "/a"),
    Case("a path that is longer", 400, "invalid-argument", "x" * 256),
    Case("a path that is longer", 400, "invalid-argument", "/".join(["x" * 200] * 21)),
    Case("a path that is not UTF-8", 400, "invalid-argument", "%ff"),
    Case("a new file or directory", 400, "invalid-argument", ".mhnos-push-a", "PUT", body=b"x"),
    Case("a new file or directory", 400, "invalid-argument", ".mhnos-push-d/a", "PUT", body=b"x"),
    Case("no such file", 404, "not-found", "nosuch"),
    Case("GET or PUT of a directory", 400, "is-a-directory", "dir"),
    Case("GET or PUT of a directory", 400, "is-a-directory", "dir", "PUT", body=b"x"),
    Case("a FIFO", 400, "invalid-argument", "fifo"),
    Case("a FIFO", 400, "invalid-argument", "fifo", "PUT", body=b"x"),
    Case("`If-Match` with", 412, "changed", "a", "PUT", (("If-Match", f'"{"0" * 24}"'),), b"x"),
    Case("`If-Match` with", 412, "changed", "new", "PUT", (("If-Match", f'"{"0" * 24}"'),), b"x"),
    Case("`If-None-Match: *`", 412, "already-exists", "a", "PUT", (("If-None-Match", "*"),), b"x"),
    Case("`Range` that begins", 416, "no-such-range", "a", headers=(("Range", "bytes=99-"),)),
    Case("an archive that is cut", 400, "damaged", "dir?archive=tar", "PUT", body=b"no tar"),
    Case("an archive that is cut", 400, "damaged", "dir?archive=zip", "PUT", body=b"no zip"),
    Case("`?archive=` with", 400, "invalid-argument", "dir?archive=rar"),
    Case("`?archive=` with", 400, "invalid-argument", "a?archive=tar"),
    Case("a part of a file", 400, "invalid-argument", "a", "PUT", (("Content-Range", "bytes 0-0/3"),), b"x"),
    Case("a part of a file", 400, "invalid-argument", "dir?archive=tar", "PUT", (("If-Match", "*"),), b""),
    Case("another method", 405, "method-not-allowed", "a", "DELETE"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    async with TestServer(tmp_path_factory.mktemp("page")) as running:
        top = running.workspace
        (top / "a").write_text("hello\n")
        (top / "dir").mkdir()
        (top / "out").symlink_to("../../../../../../etc")
        (top / "absolute").symlink_to("/etc/passwd")
        os.mkfifo(top / "fifo")
        yield running


def ask(server: TestServer, case: Case) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    headers = {"Authorization": f"Bearer {server.token}", **dict(case.headers)}
    try:
        connection.request(case.method, f"/v1/files/{case.target}", case.body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.target[:30]} {case.code}")
async def test_bad_input_has_the_outcome_that_is_documented(server: TestServer, case: Case) -> None:
    [row] = [line for line in TABLE.splitlines() if line.startswith(f"| {case.row}")]
    assert str(case.status) in row
    assert case.status == 404 or f"`{case.code}`" in row
    status, body = await asyncio.to_thread(ask, server, case)
    assert (status, f'"code": "{case.code}"' in body) == (case.status, True), body
    assert (server.workspace / "a").read_text() == "hello\n"


async def test_several_ranges_are_the_whole_file(server: TestServer) -> None:
    case = Case("", 200, "", "a", headers=(("Range", "bytes=0-0,2-2"),))
    assert await asyncio.to_thread(ask, server, case) == (200, "hello\n")
