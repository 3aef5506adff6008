"""What a client of 1.0 sees: its fields, no more than needed, and the frames it gets twice."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from mhnos_runtime.wire import messages
from mhnos_runtime.wire.answers import parse_message
from mhnos_runtime.wire.content import numbers
from mhnos_runtime.wire.encode import ANSWERED_TWICE, as_status, encode, output_text

STATS = messages.ServerStats(3, 2, 1)
STATS_JSON = '{"totalSpawned":3,"totalKilled":2,"active":1}'


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            messages.Connected(messages.ServerConfig("/workspace", "strict", False)),
            (
                '{"type":"connected","protocolVersion":"1.0.0",'
                '"config":{"workspace":"/workspace","sandboxMode":"strict","allowOpenClaw":false}}'
            ),
        ),
        (messages.Spawned(1000, id=Raw(b"1")), '{"type":"spawned","pid":1000,"status":"success","id":1}'),
        (messages.Attached(1000, "running"), '{"type":"attached","pid":1000,"status":"running"}'),
        (messages.Detached(1000), '{"type":"detached","pid":1000}'),
        (messages.Killed(1000), '{"type":"killed","pid":1000}'),
        (
            messages.ProcessList([messages.ProcessInfo(1000, "node", "a.js", [], 5, "running")], STATS),
            (
                '{"type":"processList","processes":[{"pid":1000,"type":"node","command":"a.js","args":[],'
                '"startTime":5,"status":"running"}],"stats":' + STATS_JSON + "}"
            ),
        ),
        (
            messages.StatusAnswer(messages.ServerConfig("/workspace", "none", True, 50), STATS),
            (
                '{"type":"status","config":{"workspace":"/workspace","sandboxMode":"none","allowOpenClaw":true,'
                '"maxProcesses":50},"stats":' + STATS_JSON + "}"
            ),
        ),
        (messages.Pong(5), '{"type":"pong","time":5}'),
        (
            messages.FsyncResult(
                "push", "success", messages.PushResults(1, 1, [messages.FileFailure("a", "no")])
            ),
            (
                '{"type":"fsyncResult","operation":"push","status":"success",'
                '"results":{"synced":1,"failed":1,"errors":[{"path":"a","error":"no"}]}}'
            ),
        ),
        (
            messages.FsyncResult(
                "pull", "success", files=[messages.FileEntry("/a", "file", numbers(b"\x00\xff"), 5)]
            ),
            (
                '{"type":"fsyncResult","operation":"pull","status":"success",'
                '"files":[{"path":"/a","kind":"file","content":[0,255],"mtime":5}]}'
            ),
        ),
        (
            messages.FsyncResult("x", "error", error="Unknown operation: x"),
            '{"type":"fsyncResult","operation":"x","status":"error","error":"Unknown operation: x"}',
        ),
        (messages.Stderr(1000, "x"), '{"type":"stderr","pid":1000,"data":"x"}'),
        (
            messages.Exit(1000, None, "SIGKILL", 7),
            '{"type":"exit","pid":1000,"code":null,"signal":"SIGKILL","runtime":7}',
        ),
        (messages.Gap(1000, 0, 5), '{"type":"gap","pid":1000,"from":0,"to":5}'),
        (messages.ErrorMessage("x"), '{"type":"error","error":"x"}'),
    ],
)
def test_an_answer_holds_what_1_0_has_and_reads_back(message: messages.Message, expected: str) -> None:
    assert json.loads(encode(message)) == json.loads(expected)
    assert parse_message(encode(message)) == message


def test_what_is_known_to_be_nothing_is_sent_as_null() -> None:
    record = messages.ExitInfo(0, None, "exit", "waitpid", 5, None, None, 0, 6)
    process = messages.ProcessInfo(1, "node", "", [], 5, "exited", pty=None, exit=record)
    decoded = json.loads(encode(messages.Attached(1, "exited", 0, 0, process)))["process"]
    assert decoded["pty"] is None
    assert (decoded["exit"]["signal"], decoded["exit"]["cpuMs"], decoded["exit"]["bytes"]) == (None, None, 0)
    assert "name" not in decoded


def test_answers_that_clients_of_1_0_wait_for_in_vain_follow_as_status() -> None:
    for message in (
        messages.Pong(5, id=Raw(b'"p"')),
        messages.Detached(1),
        messages.FsyncResult("pull", "success"),
    ):
        assert isinstance(message, ANSWERED_TWICE)
        first, second = json.loads(encode(message)), json.loads(as_status(encode(message)))
        assert second == {**first, "type": "status"}


def test_output_frames() -> None:
    frame = output_text("stdout", 1000, 'é"\n', 5, 9)
    assert json.loads(frame) == {"type": "stdout", "pid": 1000, "data": 'é"\n', "offset": 5, "next": 9}
    replayed = parse_message(output_text("stderr", 1000, "", 0, 0, 77))
    assert isinstance(replayed, messages.Output)
    assert (replayed.stream, replayed.timestamp, replayed.offset) == ("stderr", 77, 0)


def test_a_text_that_is_no_unicode_is_sent_with_replacement_characters() -> None:
    """A file name of other bytes, as Python reads it from a disk, must not end a connection."""
    message = messages.FsyncResult(
        "push", "success", messages.PushResults(0, 1, [messages.FileFailure("a\udcff", "no")]), id=Raw(b" 1")
    )
    assert json.loads(encode(message))["results"]["errors"][0]["path"] == "a\ufffd"
    spawn = messages.Spawn(options=messages.SpawnOptions(env={"\ud83d": "\ude00"}))
    assert json.loads(encode(spawn))["options"]["env"] == {"\ufffd": "\ufffd"}
