"""The client's connection: which losses and refusals it comes back from, when, and how the others end."""

from __future__ import annotations

import asyncio

import pytest

from mhnos_runtime.client import (
    Backoff,
    ConnectFailed,
    ConnectionLost,
    Output,
    ProcessLost,
    Unauthorized,
    connect,
)
from tests.client.fake import FakeServer, runtime_for


async def test_a_server_that_lost_its_state_ends_the_output_with_process_lost() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("python", "app.py")
        await fake.feed(process.pid, b"a")
        output = process.output()
        assert await anext(output) == Output("stdout", 0, b"a")
        fake.server_id = "second"
        fake.peers[0].cut()
        with pytest.raises(ProcessLost):
            await asyncio.wait_for(anext(output), 10)
        with pytest.raises(ProcessLost):
            await process.wait()


async def test_a_process_that_expired_meanwhile_is_lost() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("python", "app.py")
        fake.processes.clear()
        fake.peers[0].cut()
        with pytest.raises(ProcessLost):
            await asyncio.wait_for(process.wait(), 10)


async def test_a_wrong_token_is_final() -> None:
    async with FakeServer() as fake:
        fake.token = "right"
        with pytest.raises(Unauthorized):
            async with runtime_for(fake, token="wrong"):
                pass
        async with runtime_for(fake, token="right") as runtime:
            process = await runtime.spawn("python", "app.py")
            fake.token = "rotated"
            fake.peers[0].cut()
            with pytest.raises(Unauthorized):
                await asyncio.wait_for(process.wait(), 10)
            with pytest.raises(Unauthorized):
                await runtime.ping()
        assert fake.upgrades == 3


async def test_refusals_that_pass_are_retried() -> None:
    async with FakeServer() as fake:
        states: list[str] = []
        async with runtime_for(fake, on_state=states.append) as runtime:
            fake.refuse_status = 503
            fake.peers[0].cut()
            await fake.until(lambda: fake.upgrades >= 4)
            fake.refuse_status = None
            await runtime.ping()
            assert states == ["lost", "resumed"]


async def test_a_server_that_names_a_time_is_left_alone_for_so_long_once() -> None:
    """Its refusal was answered by the next attempt a tenth of a second later, and refused for longer then."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        fake.refuse_headers = {"Retry-After": "17"} if len(slept) == 1 else {}
        fake.refuse_status = {1: 429, 2: 503}.get(len(slept))

    async with FakeServer() as fake:
        steady = Backoff(first_s=1, cap_s=1, dice=lambda: 1)
        async with runtime_for(fake, backoff=steady, sleep=sleep) as runtime:
            fake.peers[0].cut()
            await fake.until(lambda: fake.upgrades == 4)
            await runtime.ping()
    assert slept == [1, 18, 1]


async def test_a_grant_that_is_revoked_ends_the_client() -> None:
    async with FakeServer() as fake, runtime_for(fake) as runtime:
        process = await runtime.spawn("python", "app.py")
        await fake.peers[0].socket.close(code=1008)
        with pytest.raises(Unauthorized, match="revoked or has expired"):
            await asyncio.wait_for(process.wait(), 10)
        assert fake.upgrades == 1


async def test_nobody_listening_is_told_with_a_hint() -> None:
    async with FakeServer() as fake:
        url = fake.url
    with pytest.raises(ConnectFailed, match="cannot connect") as caught:
        async with connect(url):
            pass
    assert "mhnos-runtime serve" in caught.value.hint


async def test_a_server_of_protocol_1_0_is_refused_in_words() -> None:
    async with FakeServer() as fake:
        fake.subprotocol = False
        with pytest.raises(ConnectFailed, match=r"speaks only protocol 1\.0\.0"):
            async with runtime_for(fake):
                pass


async def test_without_reconnect_the_loss_ends_everything() -> None:
    async with FakeServer() as fake, runtime_for(fake, reconnect=False) as runtime:
        process = await runtime.spawn("python", "app.py")
        fake.peers[0].cut()
        with pytest.raises(ConnectionLost):
            await process.wait()
        with pytest.raises(ConnectionLost):
            await runtime.ping()
