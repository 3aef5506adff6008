"""A start is refused before the reserve of descriptors is touched, and takes all it came with or none."""

from __future__ import annotations

import errno
import os

import pytest

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.launch import Confinement, Holder, LaunchPlan, StartDescriptors
from mhnos_runtime.supervisor import descriptors
from mhnos_runtime.supervisor.descriptors import (
    KEPT_DESCRIPTORS,
    SANDBOX_DESCRIPTORS,
    START_DESCRIPTORS,
    WAITING_DESCRIPTORS,
    check_room,
    duplicated,
)

PLAN = LaunchPlan(("/bin/true",), {}, handed=3)
IN_SANDBOX = LaunchPlan(("/bin/true",), {}, confine=Confinement(holder=Holder("bwrap", (), ())))


@pytest.mark.parametrize(
    ("plan", "waiting", "needed"),
    [
        (PLAN, 0, START_DESCRIPTORS + 3),
        (PLAN, 2, START_DESCRIPTORS + 3 + 2 * WAITING_DESCRIPTORS),
        (IN_SANDBOX, 0, START_DESCRIPTORS + SANDBOX_DESCRIPTORS),
    ],
)
def test_a_start_leaves_what_is_kept_for_the_rest(
    plan: LaunchPlan, waiting: int, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = needed + KEPT_DESCRIPTORS
    monkeypatch.setattr(descriptors, "free_descriptors", lambda: free)
    check_room(plan, waiting)
    free -= 1
    with pytest.raises(LimitReached, match="no descriptors") as refused:
        check_room(plan, waiting)
    assert refused.value.retry


@pytest.fixture
def given() -> StartDescriptors:
    return StartDescriptors(os.open("/", os.O_RDONLY), tuple(os.pipe()))


def closed(found: StartDescriptors) -> None:
    for fd in found.sent():
        os.close(fd)


def test_a_duplicate_of_each_is_taken(given: StartDescriptors) -> None:
    taken = duplicated(given)
    assert not set(taken.sent()) & set(given.sent())
    assert list(map(os.fstat, taken.sent())) == list(map(os.fstat, given.sent()))
    closed(given)
    closed(taken)


def test_none_is_kept_where_not_all_can_be_had(
    given: StartDescriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, times, dup = sorted(os.listdir("/proc/self/fd")), 0, os.dup

    def last_one_fails(fd: int) -> int:
        nonlocal times
        times += 1
        if times == len(given.sent()):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return dup(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", last_one_fails)
        with pytest.raises(LimitReached, match="Too many open files"):
            duplicated(given)
    assert sorted(os.listdir("/proc/self/fd")) == before
    closed(given)
