"""Routes and headers of files' content: one spelling for each path, and nothing believed that cannot be."""

from __future__ import annotations

import base64
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.client import file_routes
from mhnos_runtime.client.errors import ProtocolViolation, RequestFailed
from mhnos_runtime.wire.http import Head

VERSION = "0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/v1/files/"),
        ("", "/v1/files/"),
        ("a", "/v1/files/a"),
        ("//a/./b//c/", "/v1/files/a/b/c"),
        ("a/../b", "/v1/files/b"),
        ("/a b?c#d%2e", "/v1/files/a%20b%3Fc%23d%252e"),
        ("ü\0\n", "/v1/files/%C3%BC%00%0A"),
        ("...", "/v1/files/..."),
    ],
)
def test_a_path_has_one_spelling(path: str, route: str) -> None:
    assert file_routes.route(path) == route


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_path_becomes_another_one_on_its_way(path: str) -> None:
    """What a proxy would fold is not sent."""
    try:
        route = file_routes.route(path)
    except RequestFailed:
        assert ".." in path.split("/")
        return
    assert route.isascii()
    assert not {"", ".", ".."} & set(route.removeprefix("/v1/files/").split("/")[:-1])
    assert unquote(route) == "/v1/files" + file_routes.names(path)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("..", "outside-workspace"),
        ("/a/../../v1/tokens", "outside-workspace"),
        ("\udcff", "invalid-argument"),
    ],
)
def test_a_path_that_none_can_be(path: str, code: str) -> None:
    with pytest.raises(RequestFailed) as caught:
        file_routes.route(path)
    assert caught.value.code == code


def test_an_archive_has_a_route_of_its_own() -> None:
    assert file_routes.route("/a?b", "tar") == "/v1/files/a%3Fb?archive=tar"
    excluded = file_routes.route("/a", "tar", ["*.log", "a b&c/"])
    assert excluded == "/v1/files/a?archive=tar&exclude=%2A.log&exclude=a+b%26c%2F"


def test_conditions_and_attributes() -> None:
    assert file_routes.conditions(None) == {}
    assert file_routes.conditions(VERSION) == {"If-Match": f'"{VERSION}"'}
    assert file_routes.conditions(None, absent=True) == {"If-None-Match": "*"}
    assert file_routes.attributes(0o100755, -5) == {"Mhnos-Mode": "0755", "Mhnos-Mtime": "-5"}
    assert file_routes.attributes(None, None) == {}
    with pytest.raises(ValueError, match="absent has no version"):
        file_routes.conditions(VERSION, absent=True)
    for wrong in ("", "*", VERSION + "\n", VERSION.upper()):
        with pytest.raises(ValueError, match="no version"):
            file_routes.conditions(wrong)


def test_metadata_of_an_upload() -> None:
    text = file_routes.upload_metadata("a ü", VERSION, False, 0o644, 12)
    values = {name: base64.b64decode(value).decode() for name, value in map(str.split, text.split(","))}
    assert values == {"path": "/a ü", "mode": "0644", "mtime": "12", "ifMatch": VERSION}
    assert file_routes.upload_metadata("a", None, True, None, None) == "path L2E=,ifNoneMatch Kg=="
    with pytest.raises(RequestFailed, match="UTF-8"):
        file_routes.upload_metadata("\udcff", None, False, None, None)


def head(status: int = 200, **headers: str) -> Head:
    return Head(status, {name.replace("_", "-"): [value] for name, value in headers.items()})


def test_a_described_file() -> None:
    told = head(etag=f'"{VERSION}"', mhnos_mode="0750", mhnos_mtime="1700000000123")
    file = file_routes.described("a//b", told, 7)
    assert (file.path, file.kind, file.size, file.version) == ("/a/b", "file", 7, VERSION)
    assert (file.mode, file.mtime) == (0o750, 1_700_000_000_123)


@pytest.mark.parametrize(("mode", "mtime"), [("", ""), ("x", "1.5"), ("0" * 100, "9" * 5000), ("8", "--1")])
def test_attributes_that_are_none_are_not_believed(mode: str, mtime: str) -> None:
    file = file_routes.described("a", head(etag=f'"{VERSION}"', mhnos_mode=mode, mhnos_mtime=mtime), 7)
    assert (file.mode, file.mtime) == (0o644, 0)


@pytest.mark.parametrize("etag", ["", "x", f'W/"{VERSION}"', VERSION + "0"])
def test_without_a_version_it_is_no_file(etag: str) -> None:
    with pytest.raises(ProtocolViolation, match="which version"):
        file_routes.described("a", head(etag=etag), 7)


def test_sizes() -> None:
    assert file_routes.whole_size(head(), 5, 0) == 5
    assert file_routes.whole_size(head(206, content_range="bytes 2-4/5"), 3, 2) == 5
    for wrong, length, start in [
        (head(), None, 0),
        (head(), 5, 1),
        (head(206), 3, 2),
        (head(206, content_range="bytes 2-4/5"), 3, 1),
        (head(206, content_range="bytes 2-4/6"), 3, 2),
        (head(206, content_range="bytes 2-4/5"), 2, 2),
    ]:
        with pytest.raises(ProtocolViolation):
            file_routes.whole_size(wrong, length, start)
