"""The table of processes: how many there may be, how long ended ones stay, and who watches them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mhnos_runtime.errors import LimitReached, NotFound, Refused
from mhnos_runtime.launch import ExitRecord, ProcessRecord
from mhnos_runtime.output import LogReader, LogWriter
from mhnos_runtime.process.state import Event, NotNow, State
from mhnos_runtime.process.table import Process, ProcessTable
from tests.output.clock import holds_of


class NoInput:
    """Counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


class Logs:
    """Makes logs below a folder and closes them at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: list[LogWriter] = []
        self.readers: list[LogReader] = []

    def make(self) -> tuple[LogWriter, LogReader]:
        path = self.folder / str(len(self.writers))
        self.writers.append(LogWriter.create(path, 0))
        self.readers.append(LogReader(os.open(path, os.O_RDWR)))
        return self.writers[-1], self.readers[-1]

    def process(self, pid: int = 1000) -> tuple[LogWriter, Process]:
        writer, reader = self.make()
        return writer, Process(
            ProcessRecord(pid, 5, 0, None, {"linger_ms": None}), reader, None, holds_of(reader)
        )


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    made = Logs(tmp_path)
    yield made
    for writer, reader in zip(made.writers, made.readers, strict=True):
        writer.close()
        reader.close()


def ended_at(time_ms: int) -> ExitRecord:
    return ExitRecord(0, None, "exit", "", 1, 1, None, 0, time_ms)


def table_of(logs: Logs, ends: list[int | None], count: int = 256, keep_ms: int = 600_000) -> ProcessTable:
    """A process for each end; None for one that lives."""
    table = ProcessTable(50, count, keep_ms)
    for number, end in enumerate(ends):
        _writer, process = logs.process(1000 + number)
        table.add(process)
        if end is not None:
            process.end(ended_at(end))
    return table


def pids(processes: list[Process]) -> list[int]:
    return [process.pid for process in processes]


def expire(table: ProcessTable, now_ms: int) -> list[int]:
    """Drop what is kept no longer."""
    gone = table.expired(now_ms)
    for process in gone:
        table.drop(process)
    return pids(gone)


# Retention


def test_the_old_go_when_their_time_is_over(logs: Logs) -> None:
    table = table_of(logs, [1000, 2000, None], keep_ms=500)
    assert expire(table, 1499) == []
    assert table.next_expiry_ms() == 1500
    assert expire(table, 1500) == [1000]
    assert table.next_expiry_ms() == 2500
    assert expire(table, 99_999) == [1001]
    assert table.next_expiry_ms() is None
    assert [process.pid for process in table] == [1002]


def test_the_oldest_go_when_there_are_too_many(logs: Logs) -> None:
    table = table_of(logs, [30, 10, None, 20], count=1)
    assert sorted(expire(table, 31)) == [1001, 1003]
    assert table.get(1001) is None
    assert table.find(1000).exit is not None


def test_none_may_be_kept_at_all(logs: Logs) -> None:
    table = table_of(logs, [10, None], count=0)
    assert expire(table, 10) == [1000]


def test_what_is_watched_stays_until_it_is_left(logs: Logs) -> None:
    table = table_of(logs, [10, 20], count=0)
    watched = table.find(1000)
    watched.viewers["somebody"] = lambda: None
    assert expire(table, 10**9) == [1001]
    assert table.next_expiry_ms() is None
    watched.holds.enter(0).leave(vanished=True)  # a hold that is only kept is nobody who watches
    del watched.viewers["somebody"]
    assert expire(table, 10**9) == [1000]


def test_a_process_that_is_not_there_is_named(logs: Logs) -> None:
    with pytest.raises(NotFound, match=r"^Process 999 not found$") as refused:
        table_of(logs, []).find(999)
    assert refused.value.code == "unknown-process"


def test_a_record_that_goes_at_the_end_waits_for_nobody_or_for_who_may_come_back(logs: Logs) -> None:
    table = table_of(logs, [10, 20, 30], keep_ms=500)
    for process in table:
        process.facts = msgspec.structs.replace(process.facts, remove=True)
    table.find(1001).awaited["somebody"] = 100
    table.find(1002).awaited.update(a=100, b=100_000)
    assert table.next_expiry_ms() == 0
    assert expire(table, 99) == [1000]
    assert table.next_expiry_ms() == 100
    assert expire(table, 100) == [1001]
    assert table.next_expiry_ms() == 530, "no longer than others are kept"
    assert expire(table, 530) == [1002]


# Names


def named(logs: Logs, *rows: tuple[str | None, int | None]) -> ProcessTable:
    """From 1000 on; each its name and its end."""
    table = table_of(logs, [end for _name, end in rows])
    for process, (name, _end) in zip(table, rows, strict=True):
        process.facts = msgspec.structs.replace(process.facts, name=name)
    return table


def test_a_name_means_the_one_that_runs_else_the_one_that_ended_last(logs: Logs) -> None:
    table = named(logs, ("a", 30), ("a", 10), ("a", None), ("b", 20), ("b", 50), ("b", 50), (None, None))
    assert [table.find("a").pid, table.find("b").pid] == [1002, 1005]
    table.drop(table.find("a"))
    assert table.find("a").pid == 1000
    assert table.get("c") is table.get("1000") is table.get("") is None
    with pytest.raises(NotFound, match=r"^Process c not found$"):
        table.find("c")


def test_of_what_somebody_does_not_see_there_is_no_name(logs: Logs) -> None:
    table = named(logs, ("a", 30), ("a", None), ("b", None))
    sees = {1000}.__contains__
    assert table.find("a", sees).pid == 1000
    for handle in ("b", 1001, 1002):
        assert table.get(handle, sees) is None


def test_a_name_is_taken_by_who_runs_and_by_who_starts(logs: Logs) -> None:
    table = named(logs, ("runs", None), ("ended", 10))
    for name, hint in (("runs", "process 1000 has it"), ("starts", "starts at this moment")):
        table.reserve("starts") if name == "starts" else None
        for attempt in (table.check_name, table.reserve):
            with pytest.raises(Refused, match=f"^the name {name} is taken$") as refused:
                attempt(name)
            assert refused.value.code == "name-taken"
            assert hint in refused.value.hint
    assert table.starting == 1, "what was refused is not counted"
    table.check_name("ended")
    table.check_name("runs", table.find(1000))
    table.release("starts")
    table.reserve("starts")
    table.release("starts")
    table.reserve()
    table.release()


def test_a_name_is_free_again_when_there_was_no_room_for_its_process(logs: Logs) -> None:
    table = ProcessTable(0, 256, 600_000)
    for _ in range(2):
        with pytest.raises(LimitReached):
            table.reserve("full")


# The maximum


def test_the_maximum_counts_those_that_live_and_those_that_start(logs: Logs) -> None:
    table = ProcessTable(2, 256, 600_000)
    table.reserve()
    table.reserve()
    with pytest.raises(LimitReached, match=r"^Maximum process limit reached \(2\)$") as refused:
        table.reserve()
    assert (refused.value.code, refused.value.retry) == ("too-many-processes", True)
    table.release()
    table.reserve()
    table.release()
    _writer, process = logs.process()
    table.add(process)
    with pytest.raises(LimitReached):
        table.reserve()
    process.end(ended_at(1))
    assert table.active == 0
    table.reserve()


# One process


def test_an_end_closes_the_input_and_takes_no_more(logs: Logs) -> None:
    _writer, reader = logs.make()
    none = NoInput()
    process = Process(ProcessRecord(1, 2, 0, None, {}), reader, none, holds_of(reader))  # type: ignore[arg-type]
    process.happen(Event.END_REQUESTED)
    assert process.state is State.ENDING
    process.end(ended_at(7))
    assert (process.state, none.closed) == (State.EXITED, 1)
    with pytest.raises(NotNow):
        process.happen(Event.INPUT)


def test_a_restored_end_is_an_end(logs: Logs) -> None:
    _writer, reader = logs.make()
    process = Process(
        ProcessRecord(1, 2, 0, (80, 24), {}, False, ended_at(7)), reader, None, holds_of(reader)
    )
    assert (process.state, process.exit, process.size) == (State.EXITED, ended_at(7), (80, 24))


def test_all_who_read_are_woken(logs: Logs) -> None:
    _writer, process = logs.process()
    woken: list[int] = []
    for number in range(3):
        process.viewers[number] = lambda number=number: woken.append(number)  # type: ignore[misc]
    process.wake()
    assert woken == [0, 1, 2]


def test_one_that_leaves_while_it_is_woken(logs: Logs) -> None:
    _writer, process = logs.process()
    woken: list[str] = []

    def leave() -> None:
        del process.viewers["second"]
        woken.append("first")

    process.viewers["first"] = leave
    process.viewers["second"] = lambda: woken.append("second")
    process.wake()
    assert woken[0] == "first"
