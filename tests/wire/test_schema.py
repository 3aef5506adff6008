"""The schema in docs/ is the one that the structs make, and what docs/protocol.md shows follows it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.wire import answers, messages, parse, schema

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = [line for block in BLOCKS for line in block.splitlines()]


def strict() -> dict[str, Any]:
    """The schema without room for unknown fields, so that a misspelt one in an example is found."""
    document = copy.deepcopy(schema.schema())
    for definition in document["$defs"].values():
        if definition.get("properties"):
            definition["additionalProperties"] = False
    return document


VALIDATOR = jsonschema.Draft202012Validator(strict())


def test_the_schema_in_docs_is_the_one_of_the_structs() -> None:
    assert (DOCS / "protocol.schema.json").read_text(encoding="utf-8") == schema.text(), "run `make docs`"


def test_the_schema_is_one_and_names_every_message() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    assert schema.text() == schema.text()
    names = set(schema.schema()["$defs"])
    assert {"Request", "Answer", "Event", "Spawn", "Stdout", "Gap", "ExitInfo"} <= names


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_follows_the_schema_and_parses(example: str) -> None:
    VALIDATOR.validate(msgspec.json.decode(example))
    try:
        parse.parse_request(example)
    except MhnosError:
        assert not isinstance(answers.parse_message(example), answers.Unknown)


def test_the_schema_refuses_what_the_parser_refuses() -> None:
    for wrong in (
        {"type": "nope"},
        {"type": "write", "pid": 1},
        {"type": "resize", "pid": 1, "cols": 0, "rows": 1},
        {"type": "fsync", "operation": "push", "files": [{"path": "a", "content": [256]}]},
    ):
        assert not VALIDATOR.is_valid(wrong)


def test_every_message_has_an_example() -> None:
    shown = {msgspec.json.decode(example)["type"] for example in EXAMPLES}
    union = (messages.Request, messages.Answer, messages.Event)
    assert shown == {struct.__struct_config__.tag for part in union for struct in part.__args__}


def test_what_the_page_says_about_health_is_json() -> None:
    (health,) = re.findall(r"^```json health\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert set(msgspec.json.decode(health)) == {"status", "uptime", "processes"}
    msgspec.convert(msgspec.json.decode(health)["processes"], messages.ServerStats)


@pytest.mark.parametrize(
    "limit",
    [
        messages.MAX_ID_BYTES,
        messages.MAX_MESSAGE_BYTES >> 20,
        messages.MAX_CELLS,
        f"{messages.DEFAULT_COLS}x{messages.DEFAULT_ROWS}",
        messages.SUBPROTOCOL,
        messages.TOKEN_SUBPROTOCOL_PREFIX,
    ],
)
def test_the_page_names_the_limits_that_hold(limit: object) -> None:
    assert str(limit) in PAGE
