"""`logs` and `search` against a double of the server: which lines, their times, gaps, and lost
connections."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.cli.console import Console, command
from tests.client.fake import Cut, FakeProcess, FakeServer, Json, Peer

LOG = b"one\ntwo\nthree\ntwelve\n"
TIMES = [(0, 1000), (4, 5000), (8, 9000), (14, 9500)]
FIRST = "1970-01-01T00:00:0"


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.processes[1000] = FakeProcess(log=LOG, times=TIMES, exit={"code": 0, "signal": None, **END})
        yield made


END = {"reason": "exit", "evidence": "", "runtimeMs": 5, "cpuMs": 1}


async def logs(fake: FakeServer, *args: str) -> tuple[int, str, str]:
    code, out, err = await command(
        "logs", *args, "1000", env={"MHNOS_URL": fake.url, "MHNOS_TOKEN": "t" * 40}
    )
    return code, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ((), LOG.decode()),
        (("-f",), LOG.decode()),
        (("-t",), f"{FIRST}1.000Z one\n{FIRST}5.000Z two\n{FIRST}9.000Z three\n{FIRST}9.500Z twelve\n"),
        (("-t", "-f", "--tail", "1"), f"{FIRST}9.500Z twelve\n"),
        (("--tail", "all"), LOG.decode()),
        (("-f", "--tail", "all", "--grep", "tw"), "two\ntwelve\n"),
        (("--tail", "2"), "three\ntwelve\n"),
        (("--tail", "7b"), "twelve\n"),
        (("--since", "1970-01-01T00:00:09+00:00"), "three\ntwelve\n"),
        (("-f", "--since", "1970-01-01T00:00:09+00:00"), "three\ntwelve\n"),
        (("--until", "1970-01-01T00:00:05+00:00"), "one\ntwo\n"),
        (("--until", "1970-01-01T00:00:00+00:00"), ""),
        (("-f", "--until", "1970-01-01T00:00:05+00:00"), "one\ntwo\n"),
        (("-f", "--until", "2100-01-01T00:00:05+00:00"), LOG.decode()),
        (("--since", "1970-01-01T00:00:05+00:00", "--until", "1970-01-01T00:00:09+00:00"), "two\nthree\n"),
        (("--grep", "^tw|E"), "two\ntwelve\n"),
        (("--grep", "E$", "-i", "-f"), "one\nthree\ntwelve\n"),
        (("--grep", "E$", "-i", "--tail", "2", "-t"), f"{FIRST}9.000Z three\n{FIRST}9.500Z twelve\n"),
        (("--grep", "tw", "--tail", "1", "-f"), "twelve\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_which_lines_are_shown(fake: FakeServer, args: tuple[str, ...], shown: str) -> None:
    assert await logs(fake, *args) == (0, shown, "")


async def test_nothing_that_matches_is_told_by_the_exit_code(fake: FakeServer) -> None:
    for args in ((), ("-f",)):
        assert await logs(fake, "--grep", "nosuch", *args) == (1, "", "")
    fake.processes[1000].log = b""
    assert await logs(fake) == (0, "", "")


@pytest.mark.parametrize("args", [("--grep", "("), ("--since", "5m", "--tail", "4k")])
async def test_what_cannot_be_meant_is_refused(fake: FakeServer, args: tuple[str, ...]) -> None:
    assert (await logs(fake, *args))[0] == 2
    assert fake.requests == []


@pytest.mark.parametrize("args", [(), ("-f",), ("--grep", "t"), ("--until", "1970-01-01T00:01:00+00:00")])
async def test_what_is_no_longer_kept_is_told(fake: FakeServer, args: tuple[str, ...]) -> None:
    """The output began in the middle, without a word."""
    fake.processes[1000].first_offset = 8
    assert await logs(fake, *args) == (
        0,
        "three\ntwelve\n",
        "[8 bytes of output are no longer kept: 0 to 8]\n",
    )


@pytest.mark.parametrize(
    "args", [("--tail", "9"), ("--tail", "4k"), ("--since", "1970-01-01T00:00:00+00:00")]
)
async def test_who_asks_for_the_end_is_not_told_of_the_beginning(
    fake: FakeServer, args: tuple[str, ...]
) -> None:
    process = fake.processes[1000]
    process.first_offset, process.times = 8, TIMES[2:]
    for more in ((), ("-f",)):
        assert await logs(fake, *args, *more) == (0, "three\ntwelve\n", "")


async def test_a_connection_that_is_lost_in_the_middle_is_opened_again_where_it_was(fake: FakeServer) -> None:
    """A pager that nobody scrolls reads nothing for as long as it likes."""
    fake.chunk_bytes = 1
    fake.cut_after = 10
    fake.next_cut_after = 9
    assert await logs(fake) == (0, LOG.decode(), "")
    assert fake.upgrades > 2


async def test_a_server_that_says_nothing_more_is_an_error(fake: FakeServer) -> None:
    async def cut(peer: Peer, request: Json) -> bool:
        peer.cut()
        raise Cut

    fake.handlers["attach"] = cut
    code, out, err = await logs(fake)
    assert (code, out) == (1, "")
    assert "lost" in err


async def test_an_unknown_process_is_an_error(fake: FakeServer) -> None:
    fake.processes.clear()
    for args in ((), ("-t",), ("-f",)):
        code, _, err = await logs(fake, *args)
        assert (code, "Process 1000 not found" in err) == (1, True)


# Search


def env_of(fake: FakeServer) -> dict[str, str]:
    return {"MHNOS_URL": fake.url, "MHNOS_TOKEN": "t" * 40}


async def test_a_search_shows_process_time_and_line(fake: FakeServer) -> None:
    fake.processes[1000].log = b"needle a"
    fake.processes[1001] = FakeProcess(log=b"needle b", name="web")
    code, out, err = await command("search", "needle", env=env_of(fake))
    assert (code, out.decode()) == (0, f"1000: {FIRST}1.500Z: needle a\nweb: {FIRST}1.500Z: needle b\n")
    assert b"there may be more" in err
    code, out, err = await command("search", "-iF", "-m", "5", "needle", "1000", "--json", env=env_of(fake))
    assert (code, err) == (0, b"")
    [match] = json.loads(out)["matches"]
    assert match == {"pid": 1000, "stream": "stdout", "offset": 0, "time": 1500, "line": "needle a"}
    asked = fake.requests[-2]
    assert (asked["ignoreCase"], asked["fixed"], asked["max"], asked["processes"]) == (True, True, 5, [1000])
    assert await command("search", "nosuch", env=env_of(fake)) == (1, b"", b"")


async def test_a_search_that_fails_is_not_one_that_finds_nothing(fake: FakeServer) -> None:
    async def refuse(peer: Peer, request: Json) -> bool:
        await peer.send(
            type="error", id=request["id"], error="pattern: no", code="invalid-argument", hint="try"
        )
        return True

    fake.handlers["search"] = refuse
    code, out, err = await command("search", "(", env=env_of(fake))
    assert (code, out, err) == (2, b"", b"mhnos-runtime: pattern: no\nhint: try\n")


async def test_what_is_found_cannot_drive_the_terminal(fake: FakeServer) -> None:
    fake.processes[1000].log = "a\x1b[6nb\x1b[31mc\x1b]0;t\x07d\x9b6ne\x05\tf\x1b[".encode()
    async with Console("search", "a", "1000", env={**env_of(fake), "TERM": "xterm"}) as terminal:
        assert await terminal.exit_code() == 0
        assert terminal.seen.count(b"\x1b") == 4  # its own two colours
        assert b": abcd6ne\tf\r\n" in terminal.seen or b": abcd6ne    " in terminal.seen
