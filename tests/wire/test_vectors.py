"""docs/vectors against the wire and the server's input; and that the files are what their README says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process.client_input import ClientInput
from mhnos_runtime.wire import frames
from mhnos_runtime.wire.messages import Stream
from mhnos_runtime.wire.text import CARRY_BYTES, TextDecoder
from tests.project.checkout import ROOT
from tests.vectors import FOLDER, Case, data, document, each

PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
CASE = {"name", "proves"}
FIELDS: dict[str, dict[str, set[str]]] = {
    "headers": {"cases": {"by", "header", "payload", "frame", "error"}},
    "offsets": {"cases": {"from", "steps", "next", "error"}},
    "input": {
        "cases": {"server", "opened", "frames", "next"},
        "clients": {"types", "steps", "acknowledged", "kept", "failed", "uncertain"},
    },
    "text": {"cases": {"before", "chunks", "ends"}},
    "output": {"cases": {"log", "keeps", "attach", "later", "ended", "binary", "text"}},
    "close": {
        "cases": {"code", "reconnect", "requests"},
        "refusals": {"status", "retryAfter", "reconnect", "error", "waitMs"},
    },
    "backoff": {"cases": {"dice", "lastedMs", "delaysMs"}},
    "paths": {"cases": {"path", "base", "canonical", "error"}},
    "ignore": {"cases": {"lines", "path", "isDirectory", "ignored"}},
}


def test_each_file_is_known_and_explained_and_the_protocol_links_to_them() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(FIELDS)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {name for name in FIELDS if f"`{name}.json`" not in readme} == set()
    assert "](vectors/README.md)" in PROTOCOL


def numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int):
        yield value


@pytest.mark.parametrize("name", FIELDS)
def test_a_file_is_well_formed_and_proves_what_the_protocol_says(name: str) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"), object_pairs_hook=unique)
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    assert lists.keys() == FIELDS[name].keys()
    for section, cases in lists.items():
        names = [case["name"] for case in cases]
        assert len(set(names)) == len(names) > 0
        assert set().union(*cases) <= CASE | FIELDS[name][section]
    said = " ".join(PROTOCOL.split())
    proofs = [case["proves"] for cases in lists.values() for case in cases if "proves" in case]
    assert [proof for proof in proofs if proof not in said] == []
    assert max(numbers(found), default=0) < 1 << 53


def test_every_kind_flag_and_close_code_has_a_case() -> None:
    good = [case["frame"] for case in document("headers")["cases"] if "frame" in case]
    assert {(frame["kind"], frame["flags"]) for frame in good} == {
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 2),
    }
    table = PROTOCOL.partition("## Close codes")[2]
    codes = {int(code) for code in re.findall(r"^\| (\d{4}) \|", table, re.MULTILINE)}
    assert {case["code"] for case in document("close")["cases"]} == codes - {1000} | {1006}


@each("headers")
def test_headers(case: Case) -> None:
    frame = data(case["header"]) + data(case["payload"])
    try:
        found = frames.unpack(frame)
        # What the receiver looks at besides.
        wrong_way = (found.kind == frames.INPUT) != (case["by"] == "client")
        code = "invalid-message" if wrong_way else None
    except InvalidRequest as error:
        code = error.code
    assert code == case.get("error")
    if code is None:
        said = [int(case["frame"][name]) for name in ("kind", "flags", "pid", "offset")]
        assert [found.kind, found.flags, found.pid, found.offset] == said
        assert found.payload == data(case["payload"])
        assert frames.pack_header(*said) == data(case["header"])


@each("text")
def test_text(case: Case) -> None:
    decoder = TextDecoder()
    for stream in STREAMS:
        before = b"".join(data(part) for of, part in case.get("before", []) if of == stream)
        decoder.restore(stream, before[-CARRY_BYTES:])
    for stream, part, text in case["chunks"]:
        assert decoder.feed(stream, data(part)) == text
    assert [decoder.flush(stream) for stream in STREAMS] == case["ends"]


@each("input")
def test_input_of_a_server(case: Case) -> None:
    slot = [1, int(case["server"]["typed"]), int(case["server"]["intent"]), 0]
    client = ClientInput(slot)
    opened = case["opened"]
    assert (client.typed, client.uncertain_from) == (int(opened["next"]), opened.get("uncertainFrom"))
    for frame in case["frames"]:
        code: str | None
        try:
            part = client.new_part(int(frame["offset"]), memoryview(data(frame["data"])))
        except InvalidRequest as error:
            part, code = memoryview(b""), error.code
        else:
            code = None
        assert (code, bytes(part)) == (frame.get("error"), data(frame.get("types", "")))
        if part:
            client.begin(len(part))
            client.wrote(len(part))
            client.accepted += len(part)
    assert client.typed == ClientInput(slot).typed == int(case["next"])
