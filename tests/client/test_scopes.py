"""What a client knows of its own grant."""

from __future__ import annotations

import pytest

from mhnos_runtime.client import connect
from tests.client.fake import FakeServer


@pytest.mark.parametrize(
    ("scopes", "has"),
    [
        (None, [True, True]),
        (["view"], [True, False]),
        (["view", "control"], [True, True]),
        ([], [False, False]),
    ],
)
async def test_which_scopes_its_grant_has(scopes: list[str] | None, has: list[bool]) -> None:
    """A server that names none is older than scopes, and lets its clients do everything."""
    async with FakeServer() as fake:
        fake.scopes = scopes
        async with connect(fake.url) as runtime:
            assert [runtime.has_scope(scope) for scope in ("view", "control")] == has
