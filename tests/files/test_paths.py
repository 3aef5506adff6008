"""The canonical form of paths, for every client: docs/vectors/paths.json; and errors in its terms."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError, NotFound, Refused, Unavailable
from mhnos_runtime.files.paths import explain, explained, normalise, parts, shown, spell
from tests.vectors import Case, each


def text(value: str | Case) -> str:
    return value if isinstance(value, str) else value.get("prefix", "") + value["text"] * value["times"]


@each("paths")
def test_each_vector(case: Case) -> None:
    path, base = text(case["path"]), text(case.get("base", "/"))
    if "error" in case:
        with pytest.raises(MhnosError) as caught:
            normalise(path, base)
        assert caught.value.code == case["error"]
        assert len(caught.value.message.encode()) < 500
    else:
        canonical = text(case["canonical"])
        assert normalise(path, base) == canonical
        assert normalise(canonical) == normalise(canonical, "/elsewhere") == canonical


@given(
    st.lists(st.sampled_from(["a", "b", ".", "..", "", "workspace", "é"]), max_size=12).map("/".join),
    st.lists(st.sampled_from(["c", "..", "workspace"]), max_size=4).map("/".join),
)
def test_the_form_is_stable_and_plain(path: str, base: str) -> None:
    try:
        spelled = normalise(path, base)
    except Refused:
        return
    assert spelled == normalise(spelled) == normalise(spelled, "/elsewhere") == spell(parts(path, base))
    assert spelled.startswith("/")
    assert not {"", ".", ".."} & set(spelled[1:].split("/")) or spelled == "/"


def test_what_is_no_text_is_refused_in_words_that_are() -> None:
    with pytest.raises(InvalidRequest) as caught:
        normalise("\ud800")
    caught.value.message.encode()


def test_names_that_are_not_utf_8_are_only_shown() -> None:
    assert os.fsencode(spell([b"a", b"\xff"])) == b"/a/\xff"


@pytest.mark.parametrize(
    ("path", "told"), [("/a", "/a"), ("/a\n", "/a\\n"), ("/\x1b[31m", "/\\x1b[31m"), ("/" + "x" * 500, None)]
)
def test_a_path_in_a_message_is_one_short_line(path: str, told: str | None) -> None:
    assert shown(path) == (told or path[:297] + "...")


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOENT, NotFound, "not-found"),
        (errno.ENOTDIR, InvalidRequest, "invalid-argument"),
        (errno.EACCES, Refused, "refused"),
        (errno.ENOSPC, LimitReached, "disk-full"),
        (errno.EMFILE, LimitReached, "unavailable"),
        (errno.EIO, Unavailable, "unavailable"),
    ],
)
def test_errors_of_the_kernel_name_the_path_of_the_client(
    number: int, kind: type[MhnosError], code: str
) -> None:
    error = explain(OSError(number, os.strerror(number), "/host/secret"), "/a")
    assert (type(error), error.code) == (kind, code)
    assert error.message.endswith(": /a")
    assert "secret" not in error.message


def test_errors_of_the_kernel_are_raised_in_terms_of_the_client() -> None:
    with pytest.raises(Refused) as caught, explained("/a"):
        raise OSError(errno.EROFS, "", "/host/a")
    assert caught.value.message == "Read-only file system: /a"
    with pytest.raises(KeyError), explained("/a"):
        raise KeyError
