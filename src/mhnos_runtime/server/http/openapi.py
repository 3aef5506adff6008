"""The table of routes as an OpenAPI document. Pure: rows in, a value out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.http.routes import About, Param, Reply, Row, Shape

_NAMED = re.compile(r"\{([a-z]+)(?:\.\.\.)?\}")
_REST = "What follows, with its slashes as they are; what is in its names is percent-encoded."
#: The form of every error.
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string", "pattern": "^[a-z-]+$"},
        "hint": {"type": "string"},
        "id": {"type": "string"},
    },
}
_INFO = "Content of files, health, settings and tokens. All else goes over the WebSocket: docs/protocol.md"

Value: TypeAlias = dict[str, Any]


def document(rows: Iterable[Row], base_path: str, version: str) -> Value:
    """OpenAPI 3.1.0. version: of the protocol."""
    paths: dict[str, Value] = {}
    plain = [(row, row.about) for row in rows if row.about is not None and not row.upgrade]
    for row, about in plain:
        paths.setdefault(_NAMED.sub(r"{\1}", row.pattern), {})[row.method.lower()] = _operation(row, about)
    parts = _Parts()
    return parts.filled(
        {
            "openapi": "3.1.0",
            "info": {"title": "MHNOS runtime", "version": version, "description": _INFO},
            "servers": [{"url": base_path}],
            "security": [{"token": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
                "responses": {
                    "Problem": {
                        "description": "It went wrong: `code` is for programs, `hint` the next step",
                        "content": {"application/json": {"schema": _PROBLEM}},
                    }
                },
            },
        }
    )


def _operation(row: Row, about: About) -> Value:
    made: Value = {"summary": about.says, "x-needs": str(getattr(row.needs, "value", row.needs))}
    if params := [*_named(row, about), *map(_param, about.params)]:
        made["parameters"] = params
    if about.takes:
        content = {media: {"schema": shape} for media, shape in about.takes.items()}
        made["requestBody"] = {"required": True, "content": content}
    if row.needs is Access.OPEN:
        made["security"] = []
    replies = {str(status): _reply(reply) for status, reply in about.gives.items()}
    made["responses"] = {**replies, "default": {"$ref": "#/components/responses/Problem"}}
    return made


def _named(row: Row, about: About) -> list[Value]:
    """The parameters of the pattern that are not told of otherwise."""
    told = {param.name for param in about.params if param.place == "path"}
    rest = row.pattern.endswith("...}")
    return [
        _param(Param("path", name, _REST if rest else "Which one"))
        for name in _NAMED.findall(row.pattern)
        if name not in told
    ]


def _param(param: Param) -> Value:
    schema = {"type": "string", **({"pattern": param.pattern} if param.pattern else {})}
    made: Value = {"name": param.name, "in": param.place, "description": param.says, "schema": schema}
    return {**made, "required": True} if param.place == "path" else made


def _reply(reply: Reply) -> Value:
    made: Value = {"description": reply.says}
    if reply.headers:
        made["headers"] = {name: {"required": True, "schema": {"type": "string"}} for name in reply.headers}
    if reply.media:
        made["content"] = {reply.media: {"schema": reply.shape}}
    return made


class _Parts:
    """Shapes that are msgspec's types, put in by name."""

    def __init__(self) -> None:
        self._types: list[Shape] = []

    def filled(self, made: Value) -> Value:
        """The document with schemas in place of types."""
        found = self._with_types(made)
        _, schemas = msgspec.json.schema_components(self._types, ref_template="#/components/schemas/{name}")
        for schema in schemas.values():
            if "description" in schema:  # the indentation of a docstring depends on the version of Python
                schema["description"] = " ".join(schema["description"].split())
        found["components"]["schemas"] = {name: schemas[name] for name in sorted(schemas)}
        return dict(found)

    def _with_types(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._with_types(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._with_types(item) for item in value]
        if isinstance(value, type):
            self._types.append(value)
            return {"$ref": f"#/components/schemas/{value.__name__}"}
        return {} if value is None else value
