"""What a caller asks for, as the fields of a Spawn: what is left out is left to the server."""

from __future__ import annotations

import json

import pytest

from mhnos_runtime.client.spawning import spawn_fields
from mhnos_runtime.client.types import PtySize, SpawnOptions
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.encode import encode


def sent(options: SpawnOptions) -> dict[str, object]:
    found: dict[str, object] = json.loads(encode(m.Spawn(**spawn_fields("shell", "ls", options))))
    return found


def test_what_nobody_asks_for_is_not_sent() -> None:
    bare = {"type": "spawn", "processType": "shell", "command": "ls", "options": {}}
    assert sent({}) == bare
    assert sent({"cwd": None, "env": None, "pty": None, "limits": None, "ports": None, "args": ()}) == bare


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"args": ("-l", "a b")}, {"args": ["-l", "a b"]}),
        ({"cwd": "/x", "timeout_ms": 5}, {"options": {"cwd": "/x", "timeout": 5}}),
        ({"env": {"A": "1"}}, {"options": {"env": {"A": "1"}}}),
        ({"pty": PtySize(120, 40)}, {"pty": {"cols": 120, "rows": 40}}),
        ({"pty": False}, {"pty": False}),
        ({"pty": True}, {"pty": True}),
        ({"name": "build", "linger_ms": 0}, {"name": "build", "lingerMs": 0}),
        ({"network": "none", "limits": {"tasks": 4}}, {"network": "none", "limits": {"tasks": 4}}),
        ({"ports": {"http": 0}}, {"ports": {"http": 0}}),
        ({"within": 1000}, {"within": 1000}),
        ({"worker": m.WorkerOptions(heap_mb=64)}, {"worker": {"heapMb": 64}}),
    ],
)
def test_each_option_has_its_field(options: SpawnOptions, fields: dict[str, object]) -> None:
    found = sent(options)
    assert {name: found[name] for name in fields} == fields
    assert set(found) - set(fields) <= {"type", "processType", "command", "options"}


def test_a_limit_that_does_not_exist_is_an_error_of_the_caller() -> None:
    with pytest.raises(TypeError):
        sent({"limits": {"memory": 1}})
