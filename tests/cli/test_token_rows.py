"""What `token list` shows of a grant, without a runtime."""

from __future__ import annotations

from typing import Any

import pytest

from mhnos_runtime.cli.token import SCOPES, _cells
from mhnos_runtime.server.auth.grants import Scope


def test_the_scopes_are_the_server_s() -> None:
    assert tuple(Scope) == SCOPES


ROW: dict[str, Any] = {
    "name": "ann",
    "scopes": ["view", "files"],
    "processes": None,
    "paths": None,
    "ports": None,
    "expires": None,
    "lastUsed": None,
}


@pytest.mark.parametrize(
    ("fields", "cells"),
    [
        ({}, ("-", "never", "never")),
        ({"processes": [1000], "paths": ["/a"], "ports": [80]}, ("1000 /a :80", "never", "never")),
        ({"paths": ["/a"], "readOnly": True}, ("/a read-only", "never", "never")),
        ({"expires": 1_090_000, "lastUsed": 910_000}, ("-", "in 1m 30s", "1m 30s ago")),
        # Of a server whose clock differs.
        ({"expires": 1, "lastUsed": 2_000_000}, ("-", "in 0s", "0s ago")),
    ],
)
def test_a_row_of_the_table(fields: dict[str, Any], cells: tuple[str, ...]) -> None:
    assert _cells({**ROW, **fields}, 1000.0) == ("ann", "view,files", *cells)
