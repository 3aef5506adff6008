"""What travels or is stored has a version, which changes with its form.

A version of the runtime takes over from one of the same STATE_VERSION only, and reads no record and no facts
of another version. That holds as long as nobody changes a form and leaves its version as it is.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from mhnos_runtime.config import Settings
from mhnos_runtime.files import partials, upload_records
from mhnos_runtime.launch import CHANNEL_VERSION, Hello, ProcessRecord
from mhnos_runtime.process import facts
from mhnos_runtime.process.facts import Found, ProcessFacts
from mhnos_runtime.sandbox import Allowed
from mhnos_runtime.server.auth.token_store import Known
from mhnos_runtime.supervisor import requests
from mhnos_runtime.supervisor.archive import RECORD_VERSION
from mhnos_runtime.supervisor.handover import STATE_VERSION, HandOver


def form(kind: Any, inside: tuple[Any, ...] = ()) -> str:
    """A type as text: the names and types of all fields, down to what is no record. What records are called
    is nowhere stored."""
    origin, items = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return "|".join(sorted(form(each, inside) for each in items))
    if origin is not None:
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{','.join(form(each, inside) for each in items)}]"
    if not isinstance(kind, type):
        return repr(kind)
    hints = get_type_hints(kind) if kind not in inside and kind.__module__.startswith("mhnos_runtime") else {}
    fields = ";".join(f"{name}:{form(each, (*inside, kind))}" for name, each in hints.items())
    return f"({fields})" if fields else kind.__name__


def test_a_form_is_all_that_there_is_of_a_type() -> None:
    assert form(dict[str, int | None]) == "dict[str,NoneType|int]"
    assert form(HandOver) != form(Hello)
    assert "deadlines:list[(at:float;signal:int;reason:str)]" in form(HandOver)
    assert "ready:(state:Literal['starting','ready','failed'];reason:str)|NoneType" in form(ProcessFacts)


#: What a supervisor hands over, with what is unread in it.
STATE = (HandOver, Allowed, Settings, Known, ProcessFacts)
CHANNEL = (Hello, Allowed, Settings, Known, requests.Request, ProcessRecord)


@pytest.mark.parametrize(
    ("version", "kinds", "known"),
    [
        pytest.param(STATE_VERSION, STATE, "8:cc5386cd72e2", id="supervisor/handover.py STATE_VERSION"),
        pytest.param(CHANNEL_VERSION, CHANNEL, "3:59daa9c52206", id="launch.py CHANNEL_VERSION"),
        pytest.param(
            RECORD_VERSION, (ProcessRecord,), "2:173afab4d8ac", id="supervisor/archive.py RECORD_VERSION"
        ),
        pytest.param(
            upload_records.VERSION,
            (upload_records.Record,),
            "1:fab8f19f0ae6",
            id="files/upload_records.py VERSION",
        ),
        pytest.param(partials.VERSION, (partials.Place,), "1:fe20e4d54bde", id="files/partials.py VERSION"),
        pytest.param(facts.VERSION, (ProcessFacts, Found), "2:b873596a42f6", id="process/facts.py VERSION"),
    ],
)
def test_a_version_changes_with_its_form(version: int, kinds: Sequence[Any], known: str) -> None:
    """Where this fails: raise the version, unless none was released with it or only a class was
    renamed, and put the new digest here."""
    text = "\n".join(map(form, kinds))
    print(text)
    assert f"{version}:{hashlib.sha256(text.encode()).hexdigest()[:12]}" == known
