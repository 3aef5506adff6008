"""Which texts may be names of processes."""

from __future__ import annotations

import pytest

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process import names


@pytest.mark.parametrize("name", ["a", "0a", "a0", "a-b", "a--b", "1-2", "x" * 40, "0x1"])
def test_names(name: str) -> None:
    names.check(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "0",
            "1000",
            "9" * 40,
            "-",
            "--",
            "-a",
            "a-",
            "A",
            "aB",
            "ä",
            "a b",
            " a",
            "a ",
            "a\n",
            "\na",
            "a\x00",
        ),
        *(
            "a.b",
            "a_b",
            "a/b",
            "..",
            "x" * 41,
            "x" * 1_000_000,
            "-" * 1_000_000,
            "1" * 1_000_000,
            "\ud800",
            "\u0661",
        ),
    ],
    ids=lambda text: ascii(text[:10]),
)
def test_what_is_none_is_shown_shortened(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is not allowed; expected 1 to 40") as refused:
        names.check(name)
    assert refused.value.code == "invalid-argument"
    assert len(refused.value.message) < 500
