"""Answers in the order of their requests, whichever is there first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.server.connections.replies import MAX_WAITING, Replies


class Sent:
    """What was handed on, and how often there was room again."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.rooms = 0
        self.replies = Replies(self.frames.append, self._on_room)

    def _on_room(self) -> None:
        assert not self.replies.full
        self.rooms += 1


def test_an_answer_that_is_there_first_waits_for_the_earlier_ones() -> None:
    sent = Sent()
    first, second, third = (sent.replies.begin() for _ in range(3))
    second.set(b"2")
    third.set(b"3")
    assert sent.frames == []
    first.set(b"1")
    assert sent.frames == [b"1", b"2", b"3"]


def test_the_first_answer_counts_and_may_be_several_frames_or_none() -> None:
    sent = Sent()
    first, second, third = (sent.replies.begin() for _ in range(3))
    second.set()
    first.set(b"1", b"1 again")
    first.set(b"too late")
    third.set(b"3")
    assert sent.frames == [b"1", b"1 again", b"3"]


def test_whoever_is_first_knows_it() -> None:
    """What is sent in parts begins only then."""
    sent = Sent()
    first, second = sent.replies.begin(), sent.replies.begin()
    assert (first.first.is_set(), second.first.is_set()) == (True, False)
    first.set(b"1")
    assert second.first.is_set()
    second.set()
    assert sent.replies.begin().first.is_set()


def test_there_is_room_again_once_for_each_time_that_there_was_none() -> None:
    sent = Sent()
    replies = [sent.replies.begin() for _ in range(MAX_WAITING)]
    assert sent.replies.full
    for reply in replies[1:]:
        reply.set(b"x")
    assert (sent.replies.full, sent.rooms) == (True, 0)
    replies[0].set(b"x")
    assert (sent.replies.full, sent.rooms, len(sent.frames)) == (False, 1, MAX_WAITING)


def test_what_is_begun_while_others_are_sent_comes_behind_them() -> None:
    """An answer that is sent may bring about the next one."""
    frames: list[bytes] = []

    def send(frame: bytes) -> None:
        frames.append(frame)
        if frame == b"1":
            replies.begin().set(b"3")

    replies = Replies(send, lambda: None)
    first, second = replies.begin(), replies.begin()
    second.set(b"2")
    first.set(b"1")
    assert frames == [b"1", b"2", b"3"]


@given(st.permutations(range(8)))
def test_any_order_of_answers_gives_the_order_of_requests(order: list[int]) -> None:
    sent = Sent()
    replies = [sent.replies.begin() for _ in order]
    for number in order:
        replies[number].set(b"%d" % number)
    assert sent.frames == [b"%d" % number for number in range(8)]
