"""How long the faults last: short by default, long with --long; and the dice, whose seed is printed."""

from __future__ import annotations

import random

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="durable: many faults, for minutes")
    parser.addoption("--seed", type=int, help="durable: repeat the dice of an earlier run")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long", default=False))


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The seed is in the output of a failed test, and of each with -s."""
    chosen = request.config.getoption("--seed", default=None)
    seed = random.SystemRandom().randrange(1 << 32) if chosen is None else int(chosen)
    print(f"{request.node.name}: --seed {seed}")
    return random.Random(seed)
