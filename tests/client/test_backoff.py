"""Delays grow, are bounded, and are spread."""

from __future__ import annotations

from mhnos_runtime.client import Backoff


def test_delays_double_up_to_the_cap_and_start_again() -> None:
    backoff = Backoff(first_s=1, cap_s=5, dice=lambda: 1.0)
    assert [backoff.next_delay_s() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next_delay_s() == 1


def test_jitter_takes_off_at_most_half() -> None:
    backoff = Backoff(first_s=1, cap_s=5, dice=lambda: 0.0)
    assert backoff.next_delay_s() == 0.5


def test_many_attempts_do_not_overflow() -> None:
    backoff = Backoff(dice=lambda: 1.0)
    assert max(backoff.next_delay_s() for _ in range(5000)) == 10
