"""What holds for every test: the project's code never blocks the event loop, nobody sees the user's own
runtime, and a busy machine fails nothing. The options that make tests long, and the dice. Knows no part of
the project."""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

# Tests start hundreds of Pythons. Without bytecode on disk each of them compiles the whole runtime anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts what it leaves in the background with Ctrl-C ignored, and programs inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine only.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# (file, functions): where code that runs on the event loop may block, each with its reason.
MAY_BLOCK: list[tuple[str, set[str]]] = [
    # A module that is imported late is read once.
    ("<frozen importlib._bootstrap>", {"_find_and_load"}),
    # A log record is one short write to a terminal, a file or a pipe that somebody reads.
    ("logging/__init__.py", {"emit", "flush"}),
    # The lines of a traceback are looked up when something is about to be reported.
    ("linecache.py", {"checkcache", "updatecache"}),
    # asyncio starts a program with a pipe whose other end closes at its exec.
    ("subprocess.py", {"_execute_child"}),
    # A server reads what it starts from before it serves anybody.
    ("server/auth/grantfile.py", {"load"}),
    # One stat of a file in the state directory.
    ("server/auth/grantfile.py", {"changed"}),
    ("server/auth/token_store.py", {"follow"}),
    # A start looks up its folder, its script and the installed engines, and counts free descriptors: short
    # calls about names that the kernel has in memory.
    ("mhnos_runtime/server/processes/starting.py", {"_spawn", "plan", "worker_config"}),
    # A test that starts a server of its own waits for it anyway.
    ("mhnos_runtime/testing/server.py", {"__aenter__", "stop", "_started", "token", "server_pid"}),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="durable: many faults, for minutes")
    parser.addoption("--fuzz-seconds", type=float, default=2.0, help="hostile: how long each fuzzer runs")
    parser.addoption("--seed", type=int, help="durable, hostile: repeat the dice of an earlier run")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`, half as many again as there are CPUs: many a test waits for a clock, and none may depend
    on how busy the machine is."""
    return math.ceil(len(os.sched_getaffinity(0)) * 1.5)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The seed is in the output of a failed test, and of each with -s."""
    chosen = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(1 << 32) if chosen is None else int(chosen)
    print(f"{request.node.name}: --seed {seed}")
    return random.Random(seed)


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Iterator[int]:
    """Counts a fuzzer's rounds until --fuzz-seconds are over; there is always a first one."""
    seconds = float(request.config.getoption("--fuzz-seconds"))

    def count() -> Iterator[int]:
        end, number = time.monotonic() + seconds, 0
        while number == 0 or time.monotonic() < end:
            yield number
            number += 1

    return count()


@pytest.fixture(scope="session", autouse=True)
def never_block_the_event_loop() -> Iterator[None]:
    """Turn a blocking call of the project's code inside a running event loop into a BlockingError."""
    guard = BlockBuster("mhnos_runtime")
    for function in guard.functions.values():
        for file, names in MAY_BLOCK:
            function.can_block_in(file, names)
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@pytest.fixture(scope="session", autouse=True)
def a_user_without_a_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No settings file, no token and no running server of whoever runs the tests is found."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable.lower())))
        for variable in list(os.environ):
            if variable.startswith("MHNOS_") and not variable.startswith("MHNOS_TEST_"):
                patch.delenv(variable)
        yield
