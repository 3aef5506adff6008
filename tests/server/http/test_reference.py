"""The description of the API as a page: everything is on it, and nothing gets out of its place."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.server.auth.grants import Access, Scope
from mhnos_runtime.server.http.openapi import document
from mhnos_runtime.server.http.reference import STYLE, page
from mhnos_runtime.server.http.routes import About, Param, Reply, Row

COPY = Path(__file__).parents[3] / "docs/openapi.json"
EVIL = "</style></pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'`<b>`&amp;"
VOID = {"meta", "!doctype"}


async def nothing(_call: Any) -> None:
    """Never called."""


class Reader(HTMLParser):
    """The elements and texts of a page whose elements all end in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_everything_of_the_real_table_is_on_it() -> None:
    told = json.loads(COPY.read_text())
    read = Reader(page(told))
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in read.words
            assert operation["summary"].replace("`", "") in read.words
            for param in operation.get("parameters", []):
                assert param["name"] in read.words
                assert param["description"].replace("`", "") in read.words
            for response in operation["responses"].values():
                assert all(name in read.words for name in response.get("headers", {}))
                assert response.get("description", "").replace("`", "") in read.words
    assert all(name in read.words for name in told["components"]["schemas"])


def test_a_schema_without_a_description_is_shown_all_the_same() -> None:
    told = json.loads(COPY.read_text())
    told["components"]["schemas"] = {"Bare": {"type": "string"}}
    assert '"type": "string"' in Reader(page(told)).words


def test_each_link_leads_to_a_place_on_it() -> None:
    read = Reader(page(json.loads(COPY.read_text())))
    ids = [value for name, value in read.attributes if name == "id"]
    links = {value for name, value in read.attributes if name == "href"}
    assert len(ids) == len(set(ids))
    assert links == {f"#{each}" for each in ids}


def evil_row() -> Row:
    return Row(
        "PUT",
        f"/x{EVIL}",
        Scope.FILES,
        nothing,
        about=About(
            EVIL,
            params=(Param("header", EVIL, EVIL, EVIL),),
            takes={EVIL: {"const": EVIL}},
            gives={200: Reply(EVIL, EVIL, {EVIL: EVIL}, (EVIL,)), 204: Reply(EVIL, EVIL)},
        ),
    )


def test_an_evil_text_is_only_a_text() -> None:
    made = document([evil_row(), Row("GET", "/", Access.OPEN, nothing, about=About("A"))], EVIL, EVIL)
    text = page(made)
    read = Reader(text)
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert "b" not in read.tags
    assert {name for name, _ in read.attributes} <= {
        "lang",
        "charset",
        "name",
        "content",
        "id",
        "class",
        "href",
    }
    assert text.count("<style>") == text.count("</style>") == 1
    assert f"<style>{STYLE}</style>" in text
    assert read.words.count("alert(1)") > 10


@pytest.mark.parametrize("word", ["http:", "https:", "url(", "@import", "src=", "<script"])
def test_nothing_is_loaded(word: str) -> None:
    assert word not in page(json.loads(COPY.read_text()))
