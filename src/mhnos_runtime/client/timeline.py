"""When each byte was captured: from the time stamps that only a replay in text frames has."""

from __future__ import annotations

import aiohttp

from mhnos_runtime.client.errors import ConnectFailed
from mhnos_runtime.client.link import SslOption
from mhnos_runtime.client.received import failure
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.encode import encode
from mhnos_runtime.wire.parse import parse_message


async def read_timeline(
    session: aiohttp.ClientSession, url: str, token: str | None, pid: int, ssl_option: SslOption = True
) -> list[tuple[int, int]]:
    """(offset of the first byte, epoch ms) of each kept piece. Raises RequestFailed, ConnectFailed."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    pieces: list[tuple[int, int]] = []
    try:
        async with session.ws_connect(
            url, headers=headers, max_msg_size=m.MAX_MESSAGE_BYTES, ssl=ssl_option
        ) as socket:
            await socket.send_frame(encode(m.Attach(pid=pid)), aiohttp.WSMsgType.TEXT)
            async for frame in socket:
                message = parse_message(frame.data) if frame.type is aiohttp.WSMsgType.TEXT else None
                if isinstance(message, m.Output):
                    _note(pieces, message)
                elif isinstance(message, m.ErrorMessage):
                    raise failure(message)
                elif isinstance(message, m.Attached):
                    return pieces
    except aiohttp.ClientError as error:
        raise _failed(url, str(error)) from error
    raise _failed(url, "it closed the connection")


def _note(pieces: list[tuple[int, int]], message: m.Output) -> None:
    if isinstance(message.offset, int) and isinstance(message.timestamp, int):
        pieces.append((message.offset, message.timestamp))


def _failed(url: str, why: str) -> ConnectFailed:
    return ConnectFailed(f"cannot read time stamps from {url}: {why}")
