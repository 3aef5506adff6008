"""Positions of numbered input: what is typed once, what is uncertain, who gives way when slots run out."""

from __future__ import annotations

import pytest

from mhnos_runtime.errors import InvalidRequest, LimitReached
from mhnos_runtime.process.client_input import ClientInput, NumberedInputs

SLOTS, WORDS = 3, 4
DATA = memoryview(b"0123456789")


@pytest.fixture
def words() -> memoryview:
    """The slots of a log's header, which outlive a server."""
    return memoryview(bytearray(8 * SLOTS * WORDS)).cast("Q")


def inputs(words: memoryview) -> NumberedInputs:
    """As each server makes them."""
    return NumberedInputs([words[start : start + WORDS] for start in range(0, SLOTS * WORDS, WORDS)])


def take(client: ClientInput, data: memoryview) -> None:
    """Accept it all, as one that has been checked."""
    client.accepted += len(data)


def typed(client: ClientInput, count: int, of: int | None = None) -> None:
    """One write of `of` bytes, of which the process takes `count`."""
    client.begin(count if of is None else of)
    client.wrote(count)


def test_what_was_accepted_is_not_typed_again(words: memoryview) -> None:
    client = inputs(words).open("me", 1)
    take(client, client.new_part(0, DATA[:4]))
    assert bytes(client.new_part(0, DATA[:6])) == b"45"
    assert bytes(client.new_part(2, DATA[2:4])) == b""
    assert bytes(client.new_part(4, DATA[4:])) == b"456789"


def test_bytes_that_are_missing_are_refused(words: memoryview) -> None:
    client = inputs(words).open("me", 1)
    with pytest.raises(InvalidRequest, match="begins at 1, but only 0") as refused:
        client.new_part(1, DATA)
    assert refused.value.code == "input-gap"


def test_each_write_tells_how_far_the_process_has_come(words: memoryview) -> None:
    client = inputs(words).open("me", 1)
    told: list[int] = []
    client.on_typed = told.append
    take(client, DATA)
    for count in (3, 0, 7):
        typed(client, count, of=7)
    assert (told, client.typed, client.uncertain_from) == ([3, 10], 10, None)


def test_the_next_server_goes_on_from_what_was_typed(words: memoryview) -> None:
    """What was accepted and not typed died with the one before, and the client sends it again."""
    client = inputs(words).open("me", 1)
    take(client, DATA)
    typed(client, 4)
    later = inputs(words).open("me", 2)
    assert (later.typed, later.accepted, later.uncertain_from) == (4, 4, None)
    assert inputs(words).open("other", 3).accepted == 0


def test_what_a_kill_makes_uncertain_is_told_until_the_client_types_on(words: memoryview) -> None:
    client = inputs(words).open("me", 1)
    take(client, DATA)
    typed(client, 2)
    client.begin(5)  # and killed
    for _ in range(2):
        later = inputs(words).open("me", 2)
        assert (later.uncertain_from, later.typed, later.accepted) == (2, 7, 7)
    take(later, later.new_part(7, DATA[7:]))
    typed(later, 3)
    assert (later.uncertain_from, later.typed) == (None, 10)
    assert inputs(words).open("me", 3).uncertain_from is None


def test_a_write_that_was_not_taken_leaves_nothing_uncertain(words: memoryview) -> None:
    client = inputs(words).open("me", 1)
    take(client, DATA)
    typed(client, 0, of=10)
    assert inputs(words).open("me", 2).uncertain_from is None


def test_the_end_of_the_process_is_told(words: memoryview) -> None:
    client = inputs(words).open("me", 1)
    client.drop()
    told: list[str] = []
    client.on_dropped = lambda: told.append("dropped")
    client.drop()
    assert told == ["dropped"]


# Slots


def test_one_name_is_one_client(words: memoryview) -> None:
    numbered = inputs(words)
    assert numbered.open("me", 1) is numbered.open("me", 2)
    assert numbered.open("me", 1) is not numbered.open("you", 1)


def test_who_was_away_for_longest_gives_way(words: memoryview) -> None:
    numbered = inputs(words)
    for number, name in enumerate("abc"):
        typed_into = numbered.open(name, 10 + number)
        take(typed_into, DATA)
        typed(typed_into, 10)
    numbered.open("a", 20)
    assert numbered.open("d", 21).accepted == 0
    assert [numbered.open(name, 30).accepted for name in "acd"] == [10, 10, 0]
    assert numbered.open("b", 40).accepted == 0


def test_clients_that_are_there_or_wait_do_not_give_way(words: memoryview) -> None:
    numbered = inputs(words)
    there, waits, idle = (numbered.open(name, 1) for name in "abc")
    there.on_typed = lambda _: None
    take(waits, DATA)
    assert numbered.open("d", 2) is not idle
    take(numbered.open("d", 2), DATA)
    with pytest.raises(LimitReached, match="3 clients type") as refused:
        numbered.open("e", 3)
    assert refused.value.code == "too-many-clients"
    typed(waits, 10)
    assert numbered.open("e", 4).accepted == 0


def test_closing_gives_the_memory_back() -> None:
    """A log whose memory is still looked at could not be unmapped."""
    memory = bytearray(8 * SLOTS * WORDS)
    with memoryview(memory).cast("Q") as words:
        numbered = inputs(words)
        numbered.open("me", 1)
    with pytest.raises(BufferError):
        memory.clear()
    numbered.close()
    memory.clear()
