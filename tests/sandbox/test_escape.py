"""Tries to get out of every level, for real, and compares with what it promises. Knows no mechanism."""

from __future__ import annotations

import os

import pytest

from tests.sandbox.attempts import ANY, ATTEMPTS, HELD, OUT, WAYS, WITH_NETWORK, Attempt, outcome
from tests.sandbox.conftest import Arena, as_argument

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: At level none, an ordinary user's processes can do to the runtime what that user can.
SAME_USER = frozenset(
    {
        *("read_token", "list_state", "read_output_of_another", "read_environment_of_server"),
        *("read_memory_of_server", "write_memory_of_supervisor", "read_descriptors_of_supervisor"),
        *("signal_server", "signal_supervisor", "stop_parent", "trace_supervisor", "list_home_of_root"),
        "own_cgroup",
    }
)


# One parameter each, so that all attempts share the server of their level and network.
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
@pytest.mark.parametrize("arena", [way for way in WAYS if way[1] == "host"], indirect=True, ids="-".join)
async def test_attempt(arena: Arena, attempt: Attempt) -> None:
    await try_to_get_out(arena, attempt)


@pytest.mark.parametrize("attempt", WITH_NETWORK, ids=lambda attempt: attempt.name)
@pytest.mark.parametrize("arena", [way for way in WAYS if way[1] != "host"], indirect=True, ids="-".join)
async def test_attempt_with_a_narrower_network(arena: Arena, attempt: Attempt) -> None:
    await try_to_get_out(arena, attempt)


async def try_to_get_out(arena: Arena, attempt: Attempt) -> None:
    expected = outcome(attempt, arena.level, arena.network)
    if arena.level == "none" and os.geteuid() != 0 and attempt.name in SAME_USER:
        expected = ANY
    if arena.level == "relaxed" and os.geteuid() != 0 and attempt.name == "read_descriptors_of_supervisor":
        expected = OUT
    if arena.landlock < 6 and arena.level == "relaxed" and attempt.name in LATE:
        expected = ANY
    output, ended = await arena.run("python", "attack.py", attempt.name, as_argument(arena.facts))
    said = output.strip().rsplit("\n", 1)[-1] or f"HELD by its end: {ended}"
    assert said.startswith(("HELD", "OUT")), f"{attempt.name} broke: {output[-1500:]} {ended}"
    if expected == HELD:
        assert said.startswith("HELD")
    elif expected == OUT:
        assert said.startswith("OUT"), "the documentation promises less than what holds"


#: What Landlock can refuse only since ABI 6 (Linux 6.12).
LATE = frozenset(
    {"signal_server", "signal_supervisor", "stop_parent", "signal_another", "reach_abstract_socket"}
)


@pytest.mark.parametrize("arena", WAYS, indirect=True, ids="-".join)
async def test_the_victim_and_the_server_are_still_there(arena: Arena) -> None:
    client = arena.client
    assert client is not None
    (row,) = (await client.ask("list"))["processes"]
    assert row["args"] == [arena.facts["victim_mark"]]
    assert arena.server.server_pid() == arena.facts["server_pid"]


@pytest.mark.parametrize("arena", WAYS, indirect=True, ids="-".join)
async def test_the_record_says_what_was_given(arena: Arena) -> None:
    client = arena.client
    assert client is not None
    (row,) = (await client.ask("list"))["processes"]
    assert client.hello["config"]["sandboxMode"] == arena.level
    given = row["isolation"]
    assert (row["sandbox"], given["level"], given["network"]) == (arena.level, arena.level, arena.network)
    assert given["uid"] != 0
    assert given["seccomp"] is (arena.level != "none")
    assert bool(given["namespaces"]) is (arena.level == "strict")
