"""Refusals are counted for each address, and are cheap and quiet."""

from __future__ import annotations

import itertools

import pytest

from mhnos_runtime.observe.limit import LINES_A_MINUTE
from mhnos_runtime.server.auth import refusals
from mhnos_runtime.server.auth.refusals import rate_key
from tests.server.auth.gates import (
    LET_IN,
    LIMITED,
    NO_TOKEN,
    WRONG,
    Clock,
    facts,
    gate,
    outcome,
    refusal,
)


def test_eleventh_refusal_within_a_minute_is_429_until_the_first_is_a_minute_old() -> None:
    clock = Clock()
    subject = gate(clock=clock)
    for _ in range(10):
        assert outcome(subject.check(WRONG)) == NO_TOKEN
        clock.now_s += 1
    limited = refusal(subject.check(WRONG))
    assert outcome(limited) == LIMITED
    assert limited.retry_after_s == 50
    assert limited.hint == ""
    clock.now_s += limited.retry_after_s - 1
    assert refusal(subject.check(WRONG)).retry_after_s == 1
    clock.now_s += 1
    assert outcome(subject.check(WRONG)) == NO_TOKEN
    assert outcome(subject.check(WRONG)) == LIMITED


def test_waiting_as_told_is_enough_whatever_was_tried_meanwhile() -> None:
    clock = Clock()
    subject = gate(clock=clock)
    for _ in range(100):
        last = refusal(subject.check(WRONG))
    clock.now_s += last.retry_after_s
    assert outcome(subject.check(WRONG)) == NO_TOKEN


def test_right_token_is_let_in_beside_a_stale_client_of_the_same_address() -> None:
    """A 1.0 client with a stale token retries every 5 s for ever; it must not lock its neighbour out."""
    clock = Clock()
    subject = gate(clock=clock)
    refused = set()
    for _ in range(120):
        refused.add(outcome(subject.check(WRONG)))
        assert outcome(subject.check(facts())) == LET_IN
        clock.now_s += 5
    assert refused == {NO_TOKEN, LIMITED}


def test_refusals_of_every_kind_count() -> None:
    subject = gate()
    for _ in range(5):
        subject.check(facts(hosts=("evil.example",)))
        subject.check(facts(origins=("null",)))
    assert outcome(subject.check(WRONG)) == LIMITED
    assert outcome(subject.check(facts(hosts=("evil.example",)))) == LIMITED


def test_addresses_are_counted_apart() -> None:
    subject = gate()
    for _ in range(11):
        subject.check(WRONG)
    assert outcome(subject.check(WRONG)) == LIMITED
    assert outcome(subject.check(facts(query_tokens=("x",), remote_address="127.0.0.2"))) == NO_TOKEN


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "other"),
        ("x" * 10_000, "other"),
    ],
)
def test_rate_key(address: str, key: str) -> None:
    assert rate_key(address) == key


def test_table_of_addresses_is_bounded_and_forgets_the_quiet_ones() -> None:
    clock = Clock()
    subject = gate(clock=clock)
    for _ in range(10):
        subject.check(WRONG)
    for number in range(refusals.MAX_ADDRESSES - 1):
        subject.check(facts(query_tokens=(), remote_address=f"10.{number // 256}.{number % 256}.1"))
    assert outcome(subject.check(WRONG)) == LIMITED
    for number in range(refusals.MAX_ADDRESSES):
        subject.check(facts(query_tokens=(), remote_address=f"11.{number // 256}.{number % 256}.1"))
    assert len(subject._refusals._addresses) == refusals.MAX_ADDRESSES
    assert outcome(subject.check(WRONG)) == NO_TOKEN


# --- log lines


def test_one_line_a_minute_for_each_address_with_what_was_left_out() -> None:
    clock = Clock()
    subject = gate(clock=clock)
    lines = []
    for _ in range(36):
        verdict = refusal(subject.check(WRONG))
        if verdict.report:
            lines.append((clock.now_s - 1000, verdict.unreported))
        clock.now_s += 5
    assert lines == [(0, 0), (60, 11), (120, 11)]


def test_lines_are_bounded_over_all_addresses_too() -> None:
    clock = Clock()
    subject = gate(clock=clock)
    addresses = [f"10.0.{high}.{low}" for high, low in itertools.product(range(4), range(250))]
    answers = [subject.check(facts(query_tokens=(), remote_address=address)) for address in addresses]
    reports = [refusal(answer).report for answer in answers]
    assert sum(reports) == LINES_A_MINUTE
    clock.now_s += 60
    again = refusal(subject.check(facts(query_tokens=(), remote_address=addresses[-1])))
    assert (again.report, again.unreported) == (True, 1)
