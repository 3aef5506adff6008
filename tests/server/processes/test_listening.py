"""Where a process will listen: real sockets of loopback, and what is watched for in which network."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.config.kinds import ReadySetting
from mhnos_runtime.errors import InvalidRequest, StartFailed
from mhnos_runtime.launch import FIRST_HANDED
from mhnos_runtime.process.kind import Kind
from mhnos_runtime.process.ready import Port, Watch
from mhnos_runtime.server.processes.listening import Listening, listening, open_ports
from mhnos_runtime.server.processes.ports import MOST, Handed
from tests.server.processes.scene import descriptors

SERVES = Kind("serves", ("serve", "{socket}", "{port:http}"), env=(("ADMIN", "{socket:admin}"),))
OUTSIDE = pytest.mark.parametrize("outside", [True, False])


@pytest.fixture
def handed() -> Iterator[Handed]:
    made = Handed()
    yield made
    made.close()


def kind(*argv: str, ready: ReadySetting | None = None, events: bool = False) -> Kind:
    return Kind("k", argv, ready=ready, events=events)


@OUTSIDE
def test_each_name_gets_a_socket_or_a_number(handed: Handed, outside: bool) -> None:
    open_ports(SERVES, {}, ("mine",), handed, outside)
    assert list(handed.ports) == ["main", "admin", "mine", "http"]
    assert handed.sockets == {"main": FIRST_HANDED, "admin": FIRST_HANDED + 1, "mine": FIRST_HANDED + 2}
    for name in handed.sockets:
        socket.create_connection(("127.0.0.1", handed.ports[name])).close()
    assert len(set(handed.ports.values())) == 4


@OUTSIDE
def test_a_socket_gets_the_number_that_is_asked_for(handed: Handed, outside: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        number = used.getsockname()[1]
        with pytest.raises(StartFailed, match=f"port {number} is in use"):
            open_ports(SERVES, {"admin": number}, (), handed, outside)
    before = descriptors()
    handed.close()
    assert descriptors() == before - 1, "the socket that had been opened before"


def test_in_a_network_of_its_own_every_number_is_free(handed: Handed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        number = used.getsockname()[1]
        open_ports(SERVES, {"http": number}, (), handed, outside=False)
        assert handed.ports["http"] == number
        with pytest.raises(StartFailed):
            open_ports(SERVES, {"http": number}, (), Handed(), outside=True)


@pytest.mark.parametrize(
    ("of", "hint"),
    [
        (SERVES, "it has main, admin, http"),
        (kind("cat"), "it has none with a name; what it opens itself needs none"),
        (kind("{port}"), "it has main"),
    ],
)
def test_a_name_that_the_kind_does_not_have(handed: Handed, of: Kind, hint: str) -> None:
    with pytest.raises(InvalidRequest, match="has no port 'other'") as refused:
        open_ports(of, {"other": 0}, (), handed, outside=True)
    assert (refused.value.hint, handed.descriptors) == (hint, [])


def test_too_many_names(handed: Handed) -> None:
    many = kind(*(f"{{port:p{number}}}" for number in range(MOST)))
    open_ports(many, {}, (), handed, outside=False)
    with pytest.raises(InvalidRequest, match="more than"):
        open_ports(many, {}, ("one-more",), handed, outside=False)


# What is known of them


def opened(sockets: tuple[str, ...] = (), numbers: tuple[str, ...] = ()) -> Handed:
    """As if ports 1001, 1002, … were opened; no descriptor is."""
    handed = Handed()
    handed.ports = {name: 1001 + index for index, name in enumerate((*sockets, *numbers))}
    handed.sockets = {name: FIRST_HANDED + index for index, name in enumerate(sockets)}
    return handed


@pytest.mark.parametrize(
    ("outside", "expected"),
    [
        (True, (Port("http", 1001, "127.0.0.1", "http://127.0.0.1:1001"), Port("db", 1002, "127.0.0.1"))),
        (False, (Port("http", 1001, "127.0.0.1", "http://127.0.0.1:1001"), Port("db", 1002, ""))),
    ],
)
def test_a_socket_is_reached_from_everywhere_and_a_number_in_its_network(
    outside: bool, expected: tuple[Port, ...]
) -> None:
    assert listening(kind("x"), opened(("http",), ("db",)), outside) == Listening(expected, None)


BY_URL = ReadySetting(url="http://127.0.0.1:{port}/health", line="serving", timeout_seconds=2.5)
BY_SOCKET = ReadySetting(url="http://127.0.0.1:{socket}/health", line="serving")
BY_PORT = ReadySetting(port="main", line="serving")
BY_LINE = ReadySetting(line="serving")
BLIND = ReadySetting(port="main")


@pytest.mark.parametrize(
    ("wanted", "handed", "outside", "watch"),
    [
        (None, opened(), True, None),
        (
            BY_URL,
            opened((), ("main",)),
            True,
            Watch(url="http://127.0.0.1:1001/health", outside=True, timeout_ms=2500),
        ),
        (BY_URL, opened((), ("main",)), False, Watch(line="serving", outside=False, timeout_ms=2500)),
        (BY_SOCKET, opened(("main",)), False, Watch(url="http://127.0.0.1:1001/health", outside=False)),
        (BY_PORT, opened((), ("main",)), True, Watch(port=1001)),
        (BY_PORT, opened((), ("main",)), False, Watch(line="serving", outside=False)),
        (BY_PORT, opened(("main",)), False, Watch(port=1001, outside=False)),
        (BY_LINE, opened(), False, Watch(line="serving", outside=False)),
        (BLIND, opened((), ("main",)), False, None),
        (ReadySetting(), opened(), True, None),
    ],
)
def test_what_is_watched_for(
    wanted: ReadySetting | None, handed: Handed, outside: bool, watch: Watch | None
) -> None:
    assert listening(kind("x", ready=wanted), handed, outside).watch == watch


@OUTSIDE
def test_what_it_tells_by_itself_is_seen_from_everywhere(outside: bool) -> None:
    told = kind("x", ready=ReadySetting(), events=True)
    assert listening(told, opened(), outside).watch == Watch(events=True, outside=outside)


@pytest.mark.parametrize(("url", "speaks"), [("/health", True), ("0/health", False), ("", False)])
def test_the_port_that_is_asked_by_http_speaks_it(url: str, speaks: bool) -> None:
    """By the whole number: the address of port 1001 begins that of port 10010."""
    asked = kind("x", ready=ReadySetting(url="http://127.0.0.1:{port}" + url))
    [port] = listening(asked, opened((), ("main",)), outside=True).ports
    assert port.url == ("http://127.0.0.1:1001" if speaks else "")


@given(
    st.sampled_from([None, BY_URL, BY_SOCKET, BY_PORT, BY_LINE, BLIND]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_nothing_is_watched_for_that_cannot_be_seen(
    wanted: ReadySetting | None, handed_over: bool, outside: bool, events: bool
) -> None:
    ports = opened(("main",)) if handed_over else opened((), ("main",))
    found = listening(kind("x", ready=wanted, events=events), ports, outside)
    if found.watch is not None:
        assert found.watch.line or found.watch.port or found.watch.url or events
        assert (outside or handed_over) or not (found.watch.port or found.watch.url)
    assert [bool(port.address) for port in found.ports] == [outside or handed_over]
