"""Which row a request means: patterns, methods, and no way around a prefix."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.server.auth.grants import Access, Scope
from mhnos_runtime.server.http.routes import Match, NoRoute, Routes, Row, split


async def handler(_call: Any) -> None:
    """What no test calls."""


def row(method: str, pattern: str, *, upgrade: bool = False) -> Row:
    return Row(method, pattern, Scope.FILES, handler, upgrade)


ROWS = (
    row("GET", "/"),
    row("GET", "/{path...}", upgrade=True),
    row("GET", "/health"),
    row("GET", "/v1/tokens"),
    row("POST", "/v1/tokens"),
    row("DELETE", "/v1/tokens/{name}"),
    row("GET", "/v1/files/{path...}"),
    row("PUT", "/v1/files/{path...}"),
    row("GET", "/v1/watch", upgrade=True),
)
ROUTES = Routes(ROWS)


def found(
    method: str, path: str, *, upgrade: bool = False, routes: Routes = ROUTES
) -> tuple[str, dict[str, str]]:
    match = routes.match(method, path, upgrade)
    assert isinstance(match, Match), match
    return match.row.pattern, dict(match.params)


@pytest.mark.parametrize(
    ("method", "path", "pattern", "params"),
    [
        ("GET", "/", "/", {}),
        ("HEAD", "/health", "/health", {}),
        ("GET", "/%68ealth", "/health", {}),
        ("DELETE", "/v1/tokens/ann", "/v1/tokens/{name}", {"name": "ann"}),
        ("DELETE", "/v1/tokens/a%20b", "/v1/tokens/{name}", {"name": "a b"}),
        ("DELETE", "/v1/tokens/%2500", "/v1/tokens/{name}", {"name": "%00"}),
        ("PUT", "/v1/files/a/b.txt", "/v1/files/{path...}", {"path": "a/b.txt"}),
        ("GET", "/v1/files/", "/v1/files/{path...}", {"path": ""}),
        ("GET", "/v1/files/a/", "/v1/files/{path...}", {"path": "a/"}),
        ("GET", "/v1/files/%2541%252f", "/v1/files/{path...}", {"path": "%41%2f"}),
        ("GET", "/v1/files/caf%C3%A9/%FF", "/v1/files/{path...}", {"path": "café/\udcff"}),
        ("GET", "/v1/files/...", "/v1/files/{path...}", {"path": "..."}),
    ],
)
def test_what_a_path_means(method: str, path: str, pattern: str, params: dict[str, str]) -> None:
    assert found(method, path) == (pattern, params)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/health", ("GET", "HEAD")),
        ("HEAD", "/v1/tokens/ann", ("DELETE",)),
        ("PUT", "/v1/tokens", ("GET", "HEAD", "POST")),
        ("get", "/health", ("GET", "HEAD")),
        ("OPTIONS", "/v1/files/a", ("GET", "HEAD", "PUT")),
    ],
)
def test_another_method_is_told_which_there_are(method: str, path: str, allow: tuple[str, ...]) -> None:
    assert ROUTES.match(method, path, False) == NoRoute(allow)


ODD = [
    "",
    "*",
    "v1/tokens",
    "//v1/tokens",
    "/v1//tokens",
    "/./v1/tokens",
    "/x/../v1/tokens",
    "/x/%2e%2e/v1/tokens",
    "/x/.%2E/v1/tokens",
    "/v1%2ftokens",
    "/v1%2Ftokens",
    "/%2fv1/tokens",
    "/v1/tokens%00",
    "/v1/files/../tokens",
    "/v1/files/a%2f..%2ftokens",
    "/v1/files//etc/passwd",
    "/v1/files/a//b",
]


@pytest.mark.parametrize("path", ODD)
@pytest.mark.parametrize("upgrade", [False, True])
def test_no_spelling_goes_around_a_prefix(path: str, upgrade: bool) -> None:
    """A proxy in front may take these for another path than the one that is matched here."""
    assert ROUTES.match("GET", path, upgrade) == NoRoute()


@pytest.mark.parametrize(
    "path", ["/health/", "/v1", "/v1/", "/v1/tokens/", "/v1/tokens/a/b", "/V1/tokens", "/Health"]
)
def test_paths_that_are_not_there(path: str) -> None:
    assert ROUTES.match("GET", path, False) == NoRoute()


@pytest.mark.parametrize("path", ["/", "/ws", "/ws/", "/a/b%20c", "/health", "/v1x", "/x/v1/tokens"])
def test_a_websocket_opens_on_any_path_outside_of_what_is_reserved(path: str) -> None:
    assert found("GET", path, upgrade=True)[0] == "/{path...}"
    assert found("POST", path, upgrade=True)[0] == "/{path...}"  # the handshake says what is wrong


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/tokens", "/%76%31/tokens", "/v1/files/a"])
def test_no_websocket_opens_where_the_path_is_reserved(path: str) -> None:
    assert ROUTES.match("GET", path, True) == NoRoute()


def test_a_websocket_of_the_api_has_a_row_of_its_own() -> None:
    assert found("GET", "/v1/watch", upgrade=True)[0] == "/v1/watch"


BASED = Routes(ROWS, "/user/an%40n/")


@pytest.mark.parametrize("path", ["/user/an%40n", "/user/an@n", "/user/an%40n/"])
def test_the_base_path_itself(path: str) -> None:
    assert found("GET", path, routes=BASED)[0] == "/"
    assert found("GET", path, upgrade=True, routes=BASED)[0] == "/{path...}"


def test_below_a_base_path() -> None:
    assert found("GET", "/user/an@n/v1/files/a", routes=BASED) == ("/v1/files/{path...}", {"path": "a"})
    assert BASED.match("GET", "/user/an@n/v1/tokens", True) == NoRoute()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/user",
        "/user/bob/health",
        "/user/an@nx/health",
        "/user//an@n/health",
        "/user%2fan@n/health",
    ],
)
@pytest.mark.parametrize("upgrade", [False, True])
def test_nothing_is_outside_of_the_base_path(path: str, upgrade: bool) -> None:
    assert BASED.match("GET", path, upgrade) == NoRoute()


@given(st.text(alphabet="/.%2fF0eEv1tokens~", max_size=24))
def test_what_is_matched_can_be_read_in_one_way_only(text: str) -> None:
    segments = split(f"/{text}")
    if segments is not None:
        assert not {".", ".."} & set(segments)
        assert "" not in segments[:-1]
        assert not any("/" in segment or "\0" in segment for segment in segments)


def test_no_websocket_is_open_to_strangers() -> None:
    with pytest.raises(ValueError, match="no WebSocket is open"):
        Row("GET", "/x", Access.OPEN, handler, upgrade=True)


def test_a_row_stands_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Routes([*ROWS, row("GET", "/health")])
