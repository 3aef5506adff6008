"""Fixtures for tests of content over HTTP: a small server of files, and no waits between attempts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mhnos_runtime.client import attempts
from mhnos_runtime.client.backoff import Backoff
from tests.client.content_server import ContentServer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "Backoff", lambda: Backoff(first_s=0.0001, cap_s=0.001))


@pytest.fixture
def server() -> Iterator[ContentServer]:
    with ContentServer() as serving:
        yield serving
