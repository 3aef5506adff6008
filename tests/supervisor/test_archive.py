"""What a start finds in the state directory: records and logs that are whole, and those that are not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mhnos_runtime.channel import Channel
from mhnos_runtime.launch import ProcessRecord
from mhnos_runtime.supervisor.archive import Archive
from mhnos_runtime.supervisor.requests import BadRequest


def nested(levels: int) -> dict[str, object]:
    return {"a": nested(levels - 1)} if levels else {}


def kept_by(archive: Archive, pid: int) -> None:
    archive.new_log(pid, 4096).close()
    archive.save(ProcessRecord(pid, 1, 0, None, {}))


def test_what_is_damaged_is_set_aside_and_the_rest_is_there(tmp_path: Path) -> None:
    """A log that a power failure had left half written once kept the whole runtime from starting."""
    archive = Archive(tmp_path)
    for pid in (1000, 1001, 1002, 1003):
        kept_by(archive, pid)
    (tmp_path / "1001.log").write_bytes(b"?" * 8192)
    (tmp_path / "1002.json").write_text("{")
    (tmp_path / "1003.json").unlink()
    (tmp_path / "1004.new").write_text("never whole")
    told: list[tuple[int, str, str]] = []
    archive.on_set_aside = lambda *what: told.append(what)
    before = len(os.listdir("/proc/self/fd"))
    [left] = archive.load()
    assert left.pid == 1000
    assert left.exit is not None
    assert left.exit.reason == "lost"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1000.json", "1000.log", "set-aside"]
    aside = tmp_path / "set-aside"
    assert sorted(path.name for path in aside.iterdir()) == [
        *("1001.json", "1001.log", "1002.json", "1002.log", "1003.log"),
    ]
    assert (aside / "1001.log").read_bytes() == b"?" * 8192
    assert sorted(told) == [
        (1001, "the output log is damaged or of another version", str(aside)),
        (1002, "the record is damaged", str(aside)),
        (1003, "1003.json is not there", str(aside)),
    ]
    left.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_goes_with_a_message_about_a_process_that_is_forgotten_meanwhile(tmp_path: Path) -> None:
    """A server that said "forget" before it had read of the process was given up, or given another file."""
    archive = Archive(tmp_path)
    kept_by(archive, 1000)
    [ended] = archive.load()
    ends = Channel.pair()
    supervisor, server = Channel(ends[0]), Channel(ends[1])
    with ends[0], ends[1]:
        while not supervisor.pending:
            supervisor.send({"padding": "x" * 3000})
        supervisor.send({"event": "restored"}, lambda: list(ended.descriptors.sent()))
        ended.close()
        message = None
        while message is None or "event" not in message.body:
            message = server.receive()
            supervisor.flush()
        assert (message.body, message.descriptors) == ({"event": "restored"}, [])


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"version": 1}, "of version '1'"),
        ({"version": 3}, "of version '3'"),
        ({"pty": [10**12, 1]}, "record.pty"),
        ({"pid": 1001}, "is that of 1001"),
        ({"facts": nested(300)}, "record.facts"),
        ({"facts": {"name": "\1" * 30_000}}, "does not fit into a message"),
        ({"facts": {"name": "n" * 2_000_000}}, "bytes"),
        ({"os_pid": -1}, "record.os_pid"),
        ({"odd": 1}, "odd"),
    ],
)
def test_a_record_that_cannot_be_used_is_kept_with_its_log(
    tmp_path: Path, values: dict[str, object], reason: str
) -> None:
    """One of another version was once deleted together with its log."""
    archive = Archive(tmp_path)
    kept_by(archive, 1000)
    change(tmp_path / "1000.json", **values)
    written = (tmp_path / "1000.json").read_bytes()
    told: list[str] = []
    archive.on_set_aside = lambda pid, why, where: told.append(why)
    for number in ("", ".1"):
        assert archive.load() == []
        assert reason in told.pop()
        assert (tmp_path / "set-aside" / f"1000.json{number}").read_bytes() == written
        assert (tmp_path / "set-aside" / f"1000.log{number}").stat().st_size > 4096
        assert archive.highest_pid == 1000  # which is not given again
        kept_by(archive, 1000)
        change(tmp_path / "1000.json", **values)


def test_what_is_no_file_of_the_archive_is_left_alone(tmp_path: Path) -> None:
    """A name that is a number in another script, or begins with 0, once ended every start."""
    archive = Archive(tmp_path)
    kept_by(archive, 1000)
    os.mkfifo(tmp_path / "1001.json")
    (tmp_path / "1002.log").symlink_to("/dev/zero")
    (tmp_path / "1003.json").mkdir()
    odd = [
        "\u0661\u0660.json",
        "\u00b2.log",
        "01000.json",
        "9" * 40 + ".json",
        "4294967295.log",
        "README",
        "1000",
    ]
    for name in odd:
        (tmp_path / name).write_text("?")
    assert [each.pid for each in archive.load()] == [1000]
    assert archive.highest_pid == 1003
    assert {path.name for path in tmp_path.iterdir()} == {*odd, "1000.json", "1000.log", "set-aside"}


def test_of_a_lost_process_only_the_log_is_left(tmp_path: Path) -> None:
    """The record of a Worker still promised a socket, and the server took the log's descriptor for it."""
    archive = Archive(tmp_path)
    archive.new_log(1000, 4096).close()
    archive.save(ProcessRecord(1000, 1, 0, None, {}, control=True))
    for _ in range(2):
        [left] = archive.load()
        record = left.record()
        assert (record.control, record.stdin_open) == (False, False)
        assert record.exit is not None
        assert left.descriptors.sent() == [left.log.fd]
        left.log.close()


def test_what_is_noted_of_an_ended_process_is_there_at_the_next_start(tmp_path: Path) -> None:
    kept_by(Archive(tmp_path), 1000)
    for name in ("first", "second"):
        [ended] = Archive(tmp_path).load()
        ended.note({"name": name})
        assert ended.record().facts["name"] == name
        ended.log.close()
    [ended] = Archive(tmp_path).load()
    assert ended.record().facts == {"name": "second"}
    with pytest.raises(BadRequest, match="facts about a process take"):
        ended.note({"name": "x" * 200_000})
    ended.close()
    assert list(tmp_path.iterdir()) == []
