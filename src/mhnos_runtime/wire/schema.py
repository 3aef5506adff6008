"""The JSON Schema of every message, made from the structs: `python -m mhnos_runtime.wire.schema`.

Knows the message types; docs/protocol.schema.json is what this prints.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mhnos_runtime.wire.messages import PROTOCOL, Answer, Event, Request

DIALECT = "https://json-schema.org/draft/2020-12/schema"
UNIONS = {"Request": Request, "Answer": Answer, "Event": Event}


def schema() -> dict[str, Any]:
    """One document: `$defs` has a definition for each message and part, and the unions named in UNIONS."""
    unions, definitions = msgspec.json.schema_components(UNIONS.values(), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if "description" in definition:  # the indentation of a docstring depends on the version of Python
            definition["description"] = " ".join(definition["description"].split())
    named = dict(zip(UNIONS, unions, strict=True))
    return {
        "$schema": DIALECT,
        "title": f"MHNOS runtime protocol {PROTOCOL}",
        "description": "One text frame: a Request from a client; an Answer or an Event from the server.",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in UNIONS],
        "$defs": {**named, **{name: definitions[name] for name in sorted(definitions)}},
    }


def text() -> str:
    """The schema as it stands in docs/."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(text(), end="")
