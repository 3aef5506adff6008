"""Reads docs/vectors, for the tests of each side. Knows the form of the files; not what they mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.project.checkout import ROOT

FOLDER = ROOT / "docs" / "vectors"
Case = dict[str, Any]


def document(name: str) -> Case:
    found: Case = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def each(name: str, section: str = "cases") -> pytest.MarkDecorator:
    """One test a case, as its argument `case`."""
    cases = document(name)[section]
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def data(value: str | Case) -> bytes:
    return bytes.fromhex(value) if isinstance(value, str) else bytes.fromhex(value["hex"]) * value["times"]
