"""Which subprotocols a request offers, and the answer of a connection that is gone."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from mhnos_runtime.server.http.call import GONE, offered_protocols


@pytest.mark.parametrize(
    ("headers", "offered"),
    [
        ([], ()),
        ([""], ()),
        ([" , ,"], ()),
        (["mhnos.v1.1"], ("mhnos.v1.1",)),
        (["a,b , c"], ("a", "b", "c")),
        (["a", "b,c"], ("a", "b", "c")),
        (["a\t,b"], ("a", "b")),
        (["a b"], ("a b",)),
    ],
)
def test_offered_protocols(headers: list[str], offered: tuple[str, ...]) -> None:
    """RFC 6455, 11.3.4: several headers are one list."""
    sent = CIMultiDict([("Sec-WebSocket-Protocol", value) for value in headers])
    assert offered_protocols(make_mocked_request("GET", "/", headers=sent)) == offered


async def test_what_is_gone_is_answered_with_nothing() -> None:
    with pytest.raises(ConnectionResetError):
        await GONE.prepare(make_mocked_request("GET", "/"))
