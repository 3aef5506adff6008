"""How often a transfer is gone on with: as long as bytes arrive, and not for ever where none do."""

from __future__ import annotations

import pytest

from mhnos_runtime.client.attempts import MAX_ATTEMPTS, Attempts
from mhnos_runtime.client.backoff import Backoff
from mhnos_runtime.client.errors import ClientError, ConnectionLost, RequestFailed


def test_it_ends_after_attempts_that_bring_nothing() -> None:
    waits: list[float] = []
    attempts = Attempts(waits.append, Backoff(first_s=1, dice=lambda: 1.0))
    lost = ConnectionLost("x")
    for _ in range(MAX_ATTEMPTS - 1):
        attempts.failed(lost, 0)
    with pytest.raises(ConnectionLost) as caught:
        attempts.failed(lost, 0)
    assert caught.value is lost
    assert waits[:5] == [1, 2, 4, 8, 10]


def test_each_byte_more_begins_the_count_and_the_waits_anew() -> None:
    waits: list[float] = []
    attempts = Attempts(waits.append, Backoff(first_s=1, dice=lambda: 1.0))
    for position in range(1, 5 * MAX_ATTEMPTS):
        attempts.failed(ConnectionLost("x"), position)
    assert set(waits) == {1}
    for _ in range(MAX_ATTEMPTS - 2):
        attempts.failed(ConnectionLost("x"), 3)
    with pytest.raises(ConnectionLost):
        attempts.failed(ConnectionLost("x"), 3)


@pytest.mark.parametrize("error", [RequestFailed("x", code="changed"), ConnectionLost("x", retry=False)])
def test_what_no_attempt_can_mend_is_raised_at_once(error: ClientError) -> None:
    with pytest.raises(ClientError) as caught:
        Attempts(lambda _seconds: pytest.fail("it waited")).failed(error, 1)
    assert caught.value is error
