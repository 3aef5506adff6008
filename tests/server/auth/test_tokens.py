"""All tokens: the operator's before the stored ones, each by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mhnos_runtime.server.auth.grantfile import GrantFile, Rights
from mhnos_runtime.server.auth.grants import EVERYTHING, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.stored import StoredGrants
from mhnos_runtime.server.auth.token import ensure_token, rotate_token
from mhnos_runtime.server.auth.token_store import TokenStore
from mhnos_runtime.server.auth.tokens import Tokens


def in_force(tokens: Tokens) -> bool:
    """Asked anew each time, where a type checker would remember it."""
    return tokens.in_force


async def test_whose_a_token_is(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    path = await asyncio.to_thread(ensure_token, state_dir)
    own = path.read_text().strip()
    loop = asyncio.get_running_loop()
    stored = StoredGrants(GrantFile(state_dir), Live(loop), loop, "one")
    tokens = Tokens(TokenStore(path), stored)
    lesser = (await stored.create(Rights("operator", list(Scope)), None))[1]
    assert tokens.find(own) is EVERYTHING
    found = tokens.find(lesser)
    assert found is not None
    assert found.principal == "token:operator"
    assert tokens.find("x" * 43) is None
    assert in_force(tokens)

    new = await asyncio.to_thread(rotate_token, state_dir)
    assert tokens.find(own) is None
    assert tokens.find(new) is EVERYTHING
    assert tokens.find(lesser) == found

    path.unlink()
    assert tokens.find(new) is None
    assert not in_force(tokens)
    assert tokens.find(lesser) == found
    await stored.close()
