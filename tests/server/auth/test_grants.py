"""The one check of a right: every scope against every need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mhnos_runtime.server.auth.grants import (
    EVERYTHING,
    NOTHING,
    OPERATOR,
    Access,
    Forbidden,
    Grant,
    Need,
    Scope,
    Whole,
)

NEEDS: list[Need] = [*Scope, *Access]
PROCESSES: Whole = "processes"
PATHS: Whole = "paths"


def allowed(grant: Grant, need: Need) -> bool:
    try:
        grant.require(need)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize("scope", Scope)
def test_each_scope_is_good_for_itself(scope: Scope, need: Need) -> None:
    """Control has view in it; nothing else has anything in it."""
    one = Grant("token:ann", frozenset({scope}))
    implied = (scope, need) == (Scope.CONTROL, Scope.VIEW)
    assert allowed(one, need) is (need in (scope, Access.OPEN, Access.GRANTED) or implied)


@pytest.mark.parametrize("need", NEEDS)
def test_the_operator_has_everything_and_a_stranger_nothing(need: Need) -> None:
    assert allowed(EVERYTHING, need)
    assert allowed(NOTHING, need) is (need is Access.OPEN)


def test_every_scope_does_not_make_an_operator() -> None:
    assert not allowed(Grant("token:operator", frozenset(Scope)), Access.OPERATOR)
    assert EVERYTHING.principal == OPERATOR


def test_one_that_is_limited_does_not_do_for_the_whole() -> None:
    grant = Grant("token:ann", frozenset(Scope))
    grant.require(Scope.CONTROL, "processes")
    limited = replace(grant, processes=frozenset(), paths=())
    for whole in (PROCESSES, PATHS):
        with pytest.raises(Forbidden, match=f"for all {whole}"):
            limited.require(Scope.CONTROL, whole)
    limited.require(Scope.CONTROL)


def test_which_processes_there_are_for_somebody() -> None:
    assert EVERYTHING.sees(1000)
    limited = replace(EVERYTHING, processes=frozenset({1000}))
    assert limited.sees(1000)
    assert not limited.sees(1001)
