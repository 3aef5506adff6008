"""Fixtures for tests of settings."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Tests of permissions mean nothing to root, who passes them all."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)
