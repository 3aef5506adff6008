"""Rows of the table as an OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec

from mhnos_runtime.server.auth.grants import Access, Scope
from mhnos_runtime.server.http.openapi import document
from mhnos_runtime.server.http.routes import About, Param, Reply, Row


class Inner(msgspec.Struct):
    """What is
    in it."""

    number: int


class Thing(msgspec.Struct):
    inner: Inner


async def nothing(_call: Any) -> None:
    """Never called."""


ROWS = (
    Row("GET", "/open", Access.OPEN, nothing, about=About("Open", gives={200: Reply("Fine")})),
    Row("GET", "/things/{path...}", Scope.FILES, nothing, about=About("Read")),
    Row(
        "PUT",
        "/things/{path...}",
        Scope.FILES,
        nothing,
        about=About(
            "Write",
            params=(Param("header", "X-Mode", "How", "^a$"), Param("path", "path", "Where")),
            takes={"application/json": Thing},
            gives={201: Reply("Made", "application/json", {"items": [Inner]}, headers=("ETag",))},
        ),
    ),
    Row("GET", "/{path...}", Access.GRANTED, nothing, upgrade=True, about=About("A WebSocket")),
    Row("GET", "/untold", Access.GRANTED, nothing),
)


def test_what_rows_say_of_themselves() -> None:
    made = document(ROWS, "/base", "1.1")
    assert made["servers"] == [{"url": "/base"}]
    assert set(made["paths"]) == {"/open", "/things/{path}"}
    assert made["paths"]["/open"]["get"]["security"] == []
    assert made["paths"]["/open"]["get"]["responses"]["200"] == {"description": "Fine"}
    get, put = (made["paths"]["/things/{path}"][method] for method in ("get", "put"))
    assert "security" not in put
    assert [(each["name"], each["required"]) for each in get["parameters"]] == [("path", True)]
    mode, path = put["parameters"]
    assert (mode["in"], mode["schema"]) == ("header", {"type": "string", "pattern": "^a$"})
    assert (path["description"], put["x-needs"]) == ("Where", "files")


def test_types_are_put_in_by_name() -> None:
    made = document(ROWS, "/", "1.1")
    put = made["paths"]["/things/{path}"]["put"]
    assert put["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Thing"
    }
    reply = put["responses"]["201"]
    assert reply["content"]["application/json"]["schema"]["items"] == [{"$ref": "#/components/schemas/Inner"}]
    assert reply["headers"]["ETag"]["required"]
    assert set(made["components"]["schemas"]) == {"Inner", "Thing"}
    assert made["components"]["schemas"]["Inner"]["description"] == "What is in it."


def test_every_error_has_one_form() -> None:
    for methods in document(ROWS, "/", "1.1")["paths"].values():
        for operation in methods.values():
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
