"""When each byte was captured: from the time stamps that only a replay in text frames has."""

from __future__ import annotations

from mhnos_runtime.client.dial import SslOption
from mhnos_runtime.client.errors import ConnectFailed
from mhnos_runtime.client.link import Link, LinkClosed
from mhnos_runtime.client.received import failure
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.encode import encode


async def read_timeline(
    url: str, token: str | None, pid: int, ssl_option: SslOption = True
) -> list[tuple[int, int]]:
    """(offset of the first byte, epoch ms) of each kept piece. Raises RequestFailed, ConnectFailed."""
    pieces: list[tuple[int, int]] = []
    link = await Link.open(url, token, ssl_option=ssl_option, subprotocol=None)
    try:
        await link.send(encode(m.Attach(pid=pid)))
        while True:
            message = await link.receive()
            if isinstance(message, m.Output):
                _note(pieces, message)
            elif isinstance(message, m.ErrorMessage):
                raise failure(message)
            elif isinstance(message, m.Attached):
                return pieces
    except LinkClosed:
        raise ConnectFailed(f"cannot read time stamps from {url}: it closed the connection") from None
    finally:
        await link.close()


def _note(pieces: list[tuple[int, int]], message: m.Output) -> None:
    if isinstance(message.offset, int) and isinstance(message.timestamp, int):
        pieces.append((message.offset, message.timestamp))
