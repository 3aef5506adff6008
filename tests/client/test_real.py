"""The client and a real server: what ends a client for good, and what it is told to wait for."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from mhnos_runtime.client import ConnectFailed, Forbidden, Unauthorized, connect
from mhnos_runtime.client.direct import Direct
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.http import ask
from mhnos_runtime.testing import TestServer


async def test_a_client_whose_token_is_revoked_does_not_come_back(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        operator = Target(server.url, server.token, "test")
        wanted = {"name": "helper", "scopes": ["control"]}
        made = await asyncio.to_thread(ask, operator, "POST", "/v1/tokens", wanted)
        states: list[str] = []
        async with connect(server.url, made["token"], on_state=states.append) as runtime:
            process = await runtime.spawn("shell", "sleep 60")
            await asyncio.to_thread(ask, operator, "DELETE", "/v1/tokens/helper")
            with pytest.raises(Unauthorized, match="revoked or has expired"):
                await asyncio.wait_for(process.wait(), 30)
        assert states == []
        with pytest.raises(Unauthorized, match="refused the token"):
            async with connect(server.url, made["token"]):
                pass


async def refused(server: TestServer) -> ConnectFailed | None:
    """Why one more wrong token was not even looked at; None: it was."""
    try:
        async with connect(server.url, "wrong" * 8):
            raise AssertionError("a wrong token was taken")
    except Unauthorized:
        return None
    except ConnectFailed as error:
        return error


async def test_a_server_that_was_asked_too_often_says_when_to_come_again(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        while (error := await refused(server)) is None:
            pass
    assert "HTTP 429" in error.message
    assert error.retry
    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= 60


async def test_a_name_that_the_server_does_not_answer_to_brings_the_servers_own_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TestServer(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [place])
        there = Target(f"http://desk.example:{port}", server.token, "test")
        with pytest.raises(Forbidden, match="does not answer to this name: This server") as directly:
            await asyncio.to_thread(Direct.open, there)
        with pytest.raises(Forbidden) as by_link:
            async with connect(there.url, there.token):
                pass
    assert "desk.example" in directly.value.hint
    assert by_link.value.args == directly.value.args
    assert by_link.value.hint == directly.value.hint
