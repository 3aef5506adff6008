"""What outlives even the supervisor: a record beside each log, read again at the next start.

Knows files only. Records are written when a process starts and when it ends. What a machine that lost its
power had not yet written is gone; what is left of it is told by its form, and removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.launch import ExitRecord, ProcessRecord
from mhnos_runtime.output import LogWriter


class Ended:
    """A process of an earlier supervisor: its record and its log, nothing that runs."""

    input_fd = -1
    started = True

    def __init__(self, record: ProcessRecord, log: LogWriter, archive: Archive) -> None:
        self.pid = record.pid
        self.exit = record.exit
        self.log = log
        self._record = record
        self._archive = archive

    @property
    def descriptors(self) -> list[int]:
        return [self.log.fd]

    def record(self) -> ProcessRecord:
        return self._record

    def close(self) -> None:
        self.log.close()
        self._archive.remove(self.pid)


class Archive:
    """The directory of logs and records."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._next: tuple[int, LogWriter] | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new_log(self, pid: int, retention_bytes: int, watched: bool = False) -> LogWriter:
        """An empty log, the prepared one where it has the size. watched: it waits for a reader that is still
        to come. Raises OSError (ENOSPC, EDQUOT)."""
        if self._next is not None and self._next[0] == retention_bytes:
            log = self._next[1]
            self._next = None
            self._next_path().rename(self._log_path(pid))
        else:
            log = LogWriter.create(self._log_path(pid), retention_bytes)
        if watched:
            log.hold_all()
        return log

    def prepare(self, retention_bytes: int) -> None:
        """Allocate the next log in advance: it takes as long as everything else that a start does here."""
        if self._next is not None:
            return
        with contextlib.suppress(OSError):
            self._next_path().unlink(missing_ok=True)
            self._next = (retention_bytes, LogWriter.create(self._next_path(), retention_bytes))

    def close(self) -> None:
        """Give back what was prepared; logs and records stay."""
        if self._next is not None:
            self._next[1].close()
            self._next = None
        self._next_path().unlink(missing_ok=True)

    def _next_path(self) -> Path:
        return self._directory / "next.log"

    def _log_path(self, pid: int) -> Path:
        return self._directory / f"{pid}.log"

    def save(self, record: ProcessRecord) -> bool:
        """Write a record, all or nothing. False when the disk does not take it: the process is not harmed."""
        path = self._record_path(record.pid)
        draft = path.with_suffix(".new")
        try:
            with open(draft, "w", encoding="utf-8", opener=_private) as file:
                json.dump(record.to_dict(), file)
            draft.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            return False
        return True

    def remove(self, pid: int) -> None:
        self._log_path(pid).unlink(missing_ok=True)
        self._record_path(pid).unlink(missing_ok=True)

    def load(self, pids: Iterable[int] | None = None) -> list[Ended]:
        """These processes, or all that earlier supervisors left, oldest first. What they did not see end is
        `lost`."""
        found: list[Ended] = []
        for pid in sorted(self._all() if pids is None else pids):
            try:
                found.append(self._read(pid))
            except (OSError, ValueError, KeyError, TypeError, MhnosError):
                self.remove(pid)
        return found

    def _all(self) -> set[int]:
        """Every pid of which there is anything. A draft was never whole."""
        for path in self._directory.glob("*.new"):
            path.unlink(missing_ok=True)
        return {int(path.stem) for path in self._directory.iterdir() if path.stem.isdigit()}

    def _read(self, pid: int) -> Ended:
        record = ProcessRecord.from_dict(json.loads(self._record_path(pid).read_text(encoding="utf-8")))
        log = LogWriter(os.open(self._log_path(pid), os.O_RDWR | os.O_CLOEXEC))
        # Of what was open when it was written, only the log is left.
        found = replace(record, stdin_open=False, control=False, exit=record.exit or _lost(log.head))
        if found != record:
            self.save(found)
        return Ended(found, log, self)

    def _record_path(self, pid: int) -> Path:
        return self._directory / f"{pid}.json"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _lost(written: int) -> ExitRecord:
    return ExitRecord(
        code=None,
        signal=None,
        reason="lost",
        evidence="the runtime that started it ended before it did; how it ended was not seen",
        runtime_ms=None,
        cpu_ms=None,
        max_rss_bytes=None,
        bytes=written,
        end_time_ms=time.time_ns() // 1_000_000,
    )
