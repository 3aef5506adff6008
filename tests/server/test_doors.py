"""Nobody gets in: every route, method and header, against a real server; and where the token is not."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from mhnos_runtime.cli import local
from mhnos_runtime.client import connect as runtime_at
from mhnos_runtime.server.api.files import FileRoutes
from mhnos_runtime.server.api.health import Health
from mhnos_runtime.server.api.settings import SettingsRoute
from mhnos_runtime.server.api.tokens import TokenRoutes
from mhnos_runtime.server.api.uploads import UploadRoutes
from mhnos_runtime.server.auth.grants import Access, Need, Scope
from mhnos_runtime.server.connections.sockets import Sockets
from mhnos_runtime.server.main import routes
from mhnos_runtime.testing import TestServer
from tests.server.certificate import make_certificate
from tests.server.client import NEWER, PATIENCE, Client, connect
from tests.server.conftest import server_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Every row of the table, and what it needs. A new one is added here, and so to the tests below.
ROUTES: dict[tuple[str, str, bool], Need] = {
    ("GET", "/", False): Access.GRANTED,
    ("GET", "/{path...}", True): Access.GRANTED,
    ("GET", "/health", False): Access.OPEN,
    ("GET", "/v1/hello", False): Access.GRANTED,
    ("GET", "/v1/files/{path...}", False): Scope.FILES,
    ("PUT", "/v1/files/{path...}", False): Scope.FILES,
    ("GET", "/v1/openapi", False): Access.GRANTED,
    ("GET", "/v1/openapi.json", False): Access.GRANTED,
    ("GET", "/v1/settings", False): Access.OPERATOR,
    ("GET", "/v1/tokens", False): Access.OPERATOR,
    ("POST", "/v1/tokens", False): Access.OPERATOR,
    ("DELETE", "/v1/tokens/{name}", False): Access.OPERATOR,
    ("OPTIONS", "/v1/uploads", False): Scope.FILES,
    ("POST", "/v1/uploads", False): Scope.FILES,
    ("HEAD", "/v1/uploads/{id}", False): Scope.FILES,
    ("PATCH", "/v1/uploads/{id}", False): Scope.FILES,
    ("DELETE", "/v1/uploads/{id}", False): Scope.FILES,
    ("POST", "/v1/uploads/{id}", False): Scope.FILES,
}
REFUSED = (401, 403, 421, 429)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PATHS = (
    "/",
    "/health",
    "/ws",
    "/metrics",
    "/x/../health",
    "//health",
    "/health/",
    "/HEALTH",
    "/%68ealth",
    "/favicon.ico",
    "*",
)
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def raw(server: TestServer, method: str, target: str, headers: dict[str, str]) -> int:
    """The status of the answer to exactly this request; no client library mends or normalises it."""
    host = server.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    lines = [f"{name}: {value}" for name, value in {"Host": host, "Connection": "close", **headers}.items()]
    writer.write("\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1"))
    # The first one waits until the server has started, on a busy machine for long.
    line = await asyncio.wait_for(reader.readline(), 3 * PATIENCE)
    writer.close()
    return int(line.split()[1])


async def test_the_routes_that_are_known_here() -> None:
    nobody: Any = None
    sockets = Sockets(nobody, "", nobody, nobody)
    tokens, files, uploads = TokenRoutes(nobody), FileRoutes(nobody, nobody), UploadRoutes(nobody)
    table = routes(Health(nobody), SettingsRoute(nobody), tokens, files, uploads, sockets, "/").rows
    assert {(row.method, row.pattern, row.upgrade): row.needs for row in table} == ROUTES


@pytest.mark.parametrize(("method", "pattern", "upgrade"), ROUTES)
async def test_no_row_answers_a_stranger_unless_it_is_open(
    server: TestServer, method: str, pattern: str, upgrade: bool
) -> None:
    path = re.sub(r"[{}]|\.\.\.", "", pattern)
    status = await raw(server, method, path, UPGRADE if upgrade else {})
    assert status in ((200,) if ROUTES[method, pattern, upgrade] is Access.OPEN else REFUSED)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_but_health_answers_without_a_token(server: TestServer, method: str, path: str) -> None:
    status = await raw(server, method, path, {})
    if path in ("/health", "/%68ealth") and method in ("GET", "HEAD"):
        assert status == 200
    else:
        assert status in (400, *REFUSED)


@pytest.mark.parametrize("path", PATHS)
async def test_no_websocket_opens_without_a_token(server: TestServer, path: str) -> None:
    """Any web page could open a shell in the first server. /health is no exception here."""
    assert await raw(server, "GET", path, UPGRADE) in (400, *REFUSED)
    assert await raw(server, "GET", f"{path}?token=wrong", UPGRADE) in (400, *REFUSED)


GOOD_WAYS = ["query", "bearer", "subprotocol", "two of them"]


@pytest.mark.parametrize("way", GOOD_WAYS)
async def test_the_ways_of_showing_the_token(
    server: TestServer, http: aiohttp.ClientSession, way: str
) -> None:
    token = server.token
    url = f"{server.url}/any/path" + (f"?token={token}" if way in ("query", "two of them") else "")
    headers = {"Authorization": f"Bearer {token}"} if way in ("bearer", "two of them") else {}
    protocols = (NEWER, f"mhnos.token.{token}") if way == "subprotocol" else ()
    async with http.ws_connect(url, headers=headers, protocols=protocols) as socket:
        assert json.loads((await socket.receive(10)).data)["type"] == "connected"
        assert socket.protocol == (NEWER if protocols else None)
        assert token not in str(socket._response.headers)


BAD = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost"},
    {"Host": "evil.example"},
    {"Host": "a.localhost:1"},
    {"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:{port}"},
    {"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:2"},
    {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
    {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1.evil.example:{port}"},
    {"Host": ""},
    {"Host": "127.0.0.1:{port}@evil.example"},
    {"Authorization": "Bearer wrong"},
]


@pytest.mark.parametrize("headers", BAD, ids=str)
@pytest.mark.parametrize("upgrade", [True, False])
async def test_a_wrong_header_is_refused_though_the_token_is_right(
    server: TestServer, headers: dict[str, str], upgrade: bool
) -> None:
    """DNS rebinding and other people's pages come with a browser that may know the token."""
    headers = {
        name: value.replace("{port}", server.url.rpartition(":")[2]) for name, value in headers.items()
    }
    status = await raw(server, "GET", f"/?token={server.token}", {**(UPGRADE if upgrade else {}), **headers})
    assert status in (400, *REFUSED)
    if "Authorization" not in headers:
        assert await raw(server, "GET", "/health", headers) in (400, *REFUSED)


async def test_a_forwarded_port_of_another_number_is_good(server: TestServer) -> None:
    """ssh -L 19000:127.0.0.1:18790 and docker run -p 19000:18790 got 421, and a restart was needed."""
    for name in ("127.0.0.1", "localhost", "[::1]"):
        for origin in ({}, {"Origin": f"http://{name}:19000"}):
            headers = {"Host": f"{name}:19000", **origin}
            assert await raw(server, "GET", "/health", headers) == 200
            assert await raw(server, "GET", f"/?token={server.token}", {**UPGRADE, **headers}) == 101
            assert await raw(server, "GET", "/", {**UPGRADE, **headers}) in (401, 429)


async def test_hello_tells_what_the_first_message_of_a_websocket_does(
    server: TestServer, http: aiohttp.ClientSession
) -> None:
    async with connect(server) as client:
        first = client.hello
    headers = {"Authorization": f"Bearer {server.token}"}
    async with http.get(f"{server.url}/v1/hello", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        said = await response.json()
    wanted = {"serverId", "serverVersion", "protocol", "features", "scopes", "limits"}
    assert said == {name: first[name] for name in wanted}


async def test_the_servers_own_origin_is_good(server: TestServer, http: aiohttp.ClientSession) -> None:
    for origin in (server.url, None):
        headers = {"Origin": origin} if origin else {}
        async with http.ws_connect(f"{server.url}/?token={server.token}", headers=headers) as socket:
            assert json.loads((await socket.receive(10)).data)["type"] == "connected"


async def test_a_right_token_is_let_in_after_any_number_of_wrong_ones(server: TestServer) -> None:
    """A client with a stale token retries for ever; it must stay cheap, fill no log, and lock nobody out."""
    before = server.log.stat().st_size
    statuses = [await raw(server, "GET", "/?token=stale", UPGRADE) for _ in range(40)]
    assert set(statuses) <= {401, 429}
    assert statuses[-1] == 429
    assert server.log.stat().st_size - before < 2000
    async with connect(server) as client:
        assert (await client.ask("ping"))["type"] == "pong"


async def test_without_authentication_host_and_origin_are_checked_all_the_same(tmp_path: Path) -> None:
    async with server_in(tmp_path, "--auth", "none") as server:
        assert await raw(server, "GET", "/", UPGRADE) == 101
        for headers in BAD[:-1]:
            port = server.url.rpartition(":")[2]
            changed = {name: value.replace("{port}", port) for name, value in headers.items()}
            assert await raw(server, "GET", "/", {**UPGRADE, **changed}) in (400, *REFUSED)


async def test_origins_and_hosts_that_were_allowed(tmp_path: Path) -> None:
    flags = ("--allow-origin", "https://desk.example", "--allow-host", "runtime.example")
    async with server_in(tmp_path, *flags) as server:
        target = f"/?token={server.token}"
        good = {"Origin": "https://desk.example", "Host": "runtime.example"}
        assert await raw(server, "GET", target, {**UPGRADE, **good}) == 101
        assert (
            await raw(server, "GET", target, {**UPGRADE, **good, "Origin": "https://desk.example.evil"})
            == 403
        )
        assert await raw(server, "GET", "/", {**UPGRADE, **good}) == 401


async def test_everything_is_below_the_base_path(tmp_path: Path) -> None:
    async with server_in(tmp_path, "--base-path", "user/ann") as server:
        assert server.url.endswith("/user/ann")
        async with connect(server) as client:
            assert (await client.ask("ping"))["type"] == "pong"
        async with runtime_at(f"{server.url}/", server.token) as runtime:
            assert await runtime.list() == []
        assert (await asyncio.to_thread(local.ask_health, server.url))["status"] == "ok"
        server.url, token = server.url.removesuffix("/user/ann"), f"?token={server.token}"
        assert await raw(server, "GET", f"/health{token}", {}) == 404
        assert await raw(server, "GET", f"/{token}", UPGRADE) == 404
        assert await raw(server, "GET", "/health", {}) == 401


# Where the token is not


async def test_the_token_is_in_no_log_no_argument_and_no_environment(
    server: TestServer, client: Client
) -> None:
    token = server.token
    async with connect(server, protocols=(NEWER, f"mhnos.token.{token}")) as other:
        await other.ask("ping")
    await raw(server, "GET", f"/?token={token}x", UPGRADE)
    await raw(server, "GET", f"/\x01?token={token}", UPGRADE)
    pids = [await client.run("env; cat /proc/$PPID/cmdline; read x"), await client.spawn("shell")]
    rows = (await client.ask("list"))["processes"]
    os_pids = [server.pid, server.server_pid(), *(row["osPid"] for row in rows if row["pid"] in pids)]
    assert len(os_pids) == 4
    for os_pid in os_pids:
        for name in ("cmdline", "environ"):
            assert token.encode() not in Path(f"/proc/{os_pid}/{name}").read_bytes()
    assert token not in server.log.read_text()
    assert token not in client.output(pids[0])
    assert (server.state_dir / "token").stat().st_mode & 0o777 == 0o600
    assert server.state_dir.stat().st_mode & 0o077 == 0
    for pid in pids:
        await client.ask("kill", pid=pid)


async def test_nothing_that_is_typed_or_written_is_logged(server: TestServer, client: Client) -> None:
    pid = await client.run("read x; echo $x-back")
    await client.send("write", pid=pid, data="secret-payload\r")
    await client.exit(pid)
    await client.socket.send_str('{"type":"secret-payload"}')
    await client.socket.send_str("secret-payload")
    await client.quiet()
    assert "secret-payload" not in server.log.read_text()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def test_tls(tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    async with server_in(tmp_path, "--tls-cert", cert, "--tls-key", key) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=cert)
        async with connect(server, newer=True, ssl=trusting, origin=server.url) as client:
            pid = await client.run("head -c 3000000 /dev/zero")
            await client.exit(pid)
            assert len(client.output(pid)) == 3_000_000
        await over_tls(server, trusting)
        plain = server.url.replace("https", "http")
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"{plain}/health")


async def over_tls(server: TestServer, trusting: ssl.SSLContext) -> None:
    """Files of more than all buffers on the way, each way. The reader of a download comes late."""
    data = os.urandom(1 << 20) * 20
    url, headers = f"{server.url}/v1/files/a", {"Authorization": f"Bearer {server.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.put(url, data=io.BytesIO(data), ssl=trusting) as made:
            assert made.status == 201, await made.text()
        async with session.get(url, ssl=trusting) as got:
            async with session.get(f"{server.url}/health", ssl=trusting) as health:
                assert health.status == 200
            assert await got.read() == data


async def test_a_client_that_does_not_finish_the_tls_handshake_keeps_nobody_out(
    tmp_path: Path, certificate: tuple[str, str]
) -> None:
    cert, key = certificate
    async with server_in(tmp_path, "--tls-cert", cert, "--tls-key", key) as server:
        host, port = server.url.removeprefix("https://").split(":")
        _reader, writer = await asyncio.open_connection(host, port)
        writer.write(os.urandom(3))
        async with connect(server, ssl=ssl.create_default_context(cafile=cert)) as client:
            await client.ask("ping")
        writer.close()
