"""What holds for every test: the project's code never blocks the event loop. Knows no part of the project."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster

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
    # A test that starts a server of its own waits for it anyway.
    ("mhnos_runtime/testing/server.py", {"__aenter__", "stop", "_started", "token", "server_pid"}),
]


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
