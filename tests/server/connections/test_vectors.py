"""docs/vectors/output.json against a viewer of a real log: which frames it hands out, with which offsets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.launch import STDERR, STDOUT, ExitRecord, ProcessRecord
from mhnos_runtime.output import LogReader
from mhnos_runtime.output.layout import BURST_BYTES
from mhnos_runtime.output.writer import LogWriter
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.connections.requests.watching import start_of
from mhnos_runtime.server.connections.viewer import Frame, Viewer
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.output.clock import holds_of
from tests.vectors import Case, data, each

STREAMS = {"stdout": STDOUT, "stderr": STDERR}
KINDS = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}
PID = 1000
Log = tuple[LogWriter, Process]


@pytest.fixture
def log(tmp_path: Path, case: Case) -> Iterator[Log]:
    keeps = case.get("keeps", 1 << 20)
    writer = LogWriter.create(tmp_path / "log", keeps - BURST_BYTES)
    reader = LogReader(os.open(tmp_path / "log", os.O_RDWR))
    yield writer, Process(ProcessRecord(PID, 5, 0, None, {}), reader, None, holds_of(reader))
    writer.close()
    reader.close()


def write(writer: LogWriter, parts: list[tuple[str, str | Case]]) -> None:
    for stream, part in parts:
        writer.append(data(part), STREAMS[stream], 0)


def taken(viewer: Viewer) -> list[Frame]:
    """All there is for it now."""
    found = []
    while (frame := viewer.next_frame()) is not None:
        found.append(frame)
    return found


def told(frame: Frame) -> tuple[list[Any], bool]:
    """A frame as the vectors write it, and whether it is a replay."""
    if frame.binary:
        found = frames.unpack(frame.head + frame.body)
        return [KINDS[found.kind], found.offset, bytes(found.payload)], found.flags == frames.REPLAY
    message = json.loads(frame.head)
    if message["type"] == "gap":
        return ["gap", message["from"], message["to"]], False
    return [message["type"], message["offset"], message["next"], message["data"]], "timestamp" in message


def wanted(frame: list[Any]) -> list[Any]:
    kind, *numbers, last = frame
    if kind == "gap":
        return frame
    if len(numbers) == 1:
        return [kind, *numbers, data(last)]
    return [kind, *numbers, last if isinstance(last, str) else last["text"] * last["times"]]


@pytest.mark.parametrize("encoding", ["binary", "text"])
@each("output")
def test_what_a_server_sends_of_a_log(case: Case, encoding: str, log: Log) -> None:
    writer, process = log
    write(writer, case["log"])
    viewer = Viewer(
        process,
        start_of(process, m.Attach(pid=PID, from_=case["attach"].get("from"))),
        binary=encoding == "binary",
        wake=lambda _: None,
        on_replayed=lambda _: None,
    )
    if case.get("ended"):
        process.end(ExitRecord(0, None, "exit", "", 1, 1, None, process.log.head, 0))
    before = taken(viewer)
    if encoding == "binary" and viewer.replay_end > viewer.start:
        announced = {"type": "replay", "pid": PID, "from": viewer.start, "to": viewer.replay_end}
        assert json.loads(before.pop(0).head) == announced
    if case.get("ended"):
        assert json.loads(before.pop().head)["type"] == "exit"
    write(writer, case.get("later", []))
    after = taken(viewer)
    assert [told(frame)[0] for frame in before + after] == [wanted(frame) for frame in case[encoding]]
    # Of a gap, and of what a character left that nobody completed, nobody can say when it was written.
    assert all(replay for frame, replay in map(told, before) if frame[0] != "gap" and frame[1] != frame[2])
    assert not any(replay for _, replay in map(told, after))
