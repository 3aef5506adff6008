"""Anything stands in the state directory: the supervisor starts, and so does its server.

What is whole is there with its output, what cannot be used is set aside, and nothing is deleted.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.bounds import MESSAGE_BYTES
from mhnos_runtime.channel import encode
from mhnos_runtime.output import Chunk, Cursor, LogReader
from mhnos_runtime.process.facts import UNKNOWN, ProcessFacts, Unreadable
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.connections import shown
from mhnos_runtime.supervisor.archive import Archive
from mhnos_runtime.wire import encode as wire
from mhnos_runtime.wire import messages as m
from tests.hostile import damage
from tests.output.clock import holds_of
from tests.server.client import connect
from tests.server.conftest import server_in
from tests.supervisor.harness import supervised

WHOLE, HARMED = 1000, range(1001, 1006)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    damage.fill(tmp_path / "whole", range(WHOLE, HARMED.stop))
    return tmp_path / "whole"


def harmed(dice: random.Random, whole: Path, directory: Path) -> list[str]:
    damage.again(whole, directory)
    return [damage.harm(dice, directory, pid) for pid in HARMED if dice.random() < 0.8]


def output(log: LogReader) -> bytes:
    """All that a viewer from the start is given; a reader that would not come to an end fails."""
    cursor, parts = Cursor(log, 0), list[bytes]()
    for _ in range(10_000):
        item = cursor.take()
        if item is None:
            return b"".join(parts)
        if isinstance(item, Chunk):
            parts.append(item.data)
    raise AssertionError("a reader without end")


def served(process: Process) -> None:
    """What a server makes of it."""
    wire.encode(m.ProcessList([shown.describe(process)], m.ServerStats(0, 0, 0)))
    output(process.log)
    process.log.before(process.log.head, 0, 9)
    process.log.since(3)


def read(directory: Path) -> tuple[dict[int, bytes], int]:
    """Load everything as a start does; the output of each process, and how many were set aside."""
    archive, aside = Archive(directory), []
    archive.on_set_aside = lambda pid, why, where: aside.append(pid)
    found = {}
    for ended in archive.load():
        record = ended.record()
        try:
            facts = ProcessFacts.decode(record.facts)
        except Unreadable:
            facts = UNKNOWN
        told = {"event": "restored", "record": record.to_dict()}
        assert len(encode(told)) <= MESSAGE_BYTES
        log = LogReader(os.dup(ended.log.fd))
        process = Process(record, log, None, holds_of(log), facts)
        served(process)
        found[ended.pid] = output(process.log)
        process.close()
        ended.log.close()
    assert archive.highest_pid == max(HARMED)
    return found, len(aside)


def files(directory: Path) -> list[str]:
    """Names without what tells files of the same name apart, of both folders."""
    return sorted(
        path.name for path in directory.rglob("*.*") if path.parent.name in (directory.name, "set-aside")
    )


@pytest.mark.timeout(0)
def test_a_start_reads_what_it_can_and_loses_nothing(
    tmp_path: Path, whole: Path, dice: random.Random, rounds: Iterator[int]
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in rounds:
        directory = tmp_path / "state"
        did = harmed(dice, whole, directory)
        before = files(directory)
        try:
            found, aside = read(directory)
            assert found[WHOLE] == damage.TEXT * 2
            assert len(found) + aside == 1 + len(HARMED)
            assert files(directory) == before
            assert read(directory) == (found, 0)
        except BaseException:
            print("what was done:", *did, sep="\n")
            raise
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.timeout(0)
def test_a_supervisor_starts_whatever_is_there(
    tmp_path: Path, whole: Path, dice: random.Random, rounds: Iterator[int]
) -> None:
    for _ in rounds:
        did = harmed(dice, whole, tmp_path / "state" / "processes")
        with supervised(tmp_path) as supervisor:
            try:
                server = supervisor.serve()
                assert server.processes[WHOLE].output() == damage.TEXT * 2
                fresh = server.sh("exit 5")
                assert fresh.pid == HARMED.stop
                assert server.ended(fresh).code == 5
                assert "defect" not in supervisor.log
                assert "Traceback" not in supervisor.log
            except BaseException:
                print("what was done:", *did, supervisor.log, sep="\n")
                raise


@pytest.mark.timeout(0)
async def test_clients_are_served_whatever_is_there(
    tmp_path: Path, whole: Path, dice: random.Random, rounds: Iterator[int]
) -> None:
    for _ in rounds:
        did = harmed(dice, whole, tmp_path / "state" / "processes")
        (tmp_path / "state").chmod(stat.S_IRWXU)
        (tmp_path / "server.log").unlink(missing_ok=True)
        try:
            # What ended when the fuzzer began is kept to its end.
            async with server_in(tmp_path, "--retain-seconds", "604800") as server:
                async with connect(server) as client:
                    listed = await client.ask("list", all=True)
                    assert WHOLE in {row["pid"] for row in listed["processes"]}
                    attached = await client.ask("attach", pid=WHOLE)
                    assert attached["next"] == len(damage.TEXT) * 2
                    spawned = await client.ask("spawn", processType="shell", command="exit 5")
                    assert spawned["pid"] == HARMED.stop
                log = server.log.read_text()
                assert "Traceback" not in log
                assert "defect" not in log
                assert "ended; starting it again" not in log
        except BaseException:
            print("what was done:", *did, server.log.read_text(), sep="\n")
            raise
