"""Records beside the logs, which outlive the supervisor and are read at the next start.

Knows files only. A record is written when a process starts and when it ends; a loss of power loses what was
not yet on disk. A record that is damaged, too large or of another version is moved aside with its log:
nothing is deleted that was not understood.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mhnos_runtime import bounds
from mhnos_runtime.channel import encode
from mhnos_runtime.errors import MhnosError
from mhnos_runtime.launch import REASONS, ExitRecord, ProcessDescriptors, ProcessRecord
from mhnos_runtime.output import LogWriter
from mhnos_runtime.proc import free_descriptors
from mhnos_runtime.supervisor.requests import with_found
from mhnos_runtime.supervisor.shape import BadShape, checker

#: The version of records that this supervisor writes, and the only one that it reads.
RECORD_VERSION = 2
#: The folder for unusable records, for the operator to look at.
SET_ASIDE = "set-aside"
#: Exit codes are not negative; no address space has more bytes than this.
_RANGES = {
    "ProcessRecord.pid": (0, bounds.MAX_PID),
    "ProcessRecord.os_pid": (0, bounds.MAX_PID),
    "ProcessRecord.pty": (0, bounds.MAX_CELLS),
    "ExitRecord.code": (0, 255),
}
#: No runtime reaches a pid beyond this, so a file name with one is not ours. The next pid is above all pids
#: in use, and must be in a server's range.
_LAST_PID = bounds.MAX_PID // 2
_DIGITS = len(str(_LAST_PID))
_check_record = checker(ProcessRecord, _RANGES)


class Ended:
    """A process of an earlier supervisor: record and log, nothing that runs."""

    input_fd = -1
    started = True

    def __init__(self, record: ProcessRecord, log: LogWriter, archive: Archive) -> None:
        self.pid = record.pid
        self.exit = record.exit
        self.log = log
        self._record = record
        self._archive = archive

    @property
    def descriptors(self) -> ProcessDescriptors:
        return ProcessDescriptors(self.log.fd)

    def record(self) -> ProcessRecord:
        return self._record

    def note(self, found: dict[str, Any]) -> None:
        """As Process.note."""
        self._record = replace(self._record, facts=with_found(self._record.facts, found))
        self._archive.save(self._record)

    def close(self) -> None:
        self.log.close()
        self._archive.remove(self.pid)


class Archive:
    """The directory of logs and records.

    on_set_aside: called with the pid, the reason and the new place of what was moved aside. highest_pid: of
    all files, also those set aside.
    """

    def __init__(self, directory: Path) -> None:
        self.on_set_aside: Callable[[int, str, str], None] = lambda *_: None
        self.highest_pid = 0
        self._directory = directory
        self._next: tuple[int, LogWriter] | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new_log(self, pid: int, retention_bytes: int, watched: bool = False) -> LogWriter:
        """An empty log, the prepared one if it has the size. watched: it is held for a reader that will come.
        Raises OSError (ENOSPC, EDQUOT)."""
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
        """Allocate the next log in advance: that takes as long as the rest of a start here."""
        if self._next is not None:
            return
        with contextlib.suppress(OSError):
            self._next_path().unlink(missing_ok=True)
            self._next = (retention_bytes, LogWriter.create(self._next_path(), retention_bytes))

    def close(self) -> None:
        """Release the prepared log; logs and records stay."""
        if self._next is not None:
            self._next[1].close()
            self._next = None
        self._next_path().unlink(missing_ok=True)

    def _next_path(self) -> Path:
        return self._directory / "next.log"

    def _log_path(self, pid: int) -> Path:
        return self._directory / f"{pid}.log"

    def save(self, record: ProcessRecord) -> bool:
        """Write a record, all or nothing. False if the disk is full: the process goes on."""
        path = self._record_path(record.pid)
        draft = path.with_suffix(".new")
        try:
            with open(draft, "w", encoding="utf-8", opener=_private) as file:
                json.dump({"version": RECORD_VERSION, **record.to_dict()}, file)
            draft.rename(path)
        except (OSError, ValueError, RecursionError):
            with contextlib.suppress(OSError):
                draft.unlink()
            return False
        return True

    def remove(self, pid: int) -> None:
        self._log_path(pid).unlink(missing_ok=True)
        self._record_path(pid).unlink(missing_ok=True)

    def load(self, pids: Iterable[int] | None = None) -> list[Ended]:
        """These processes, or all that earlier supervisors left, oldest first. Those without an end are
        `lost`. Raises nothing: unreadable records are set aside. Half of the descriptors are kept for new
        processes; if the other half is too few, the oldest records stay on disk for a later start."""
        found: list[Ended] = []
        least = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        for pid in sorted(self._all() if pids is None else pids, reverse=True):
            if free_descriptors() <= least:
                self.on_set_aside(pid, "no descriptor is left for it; it stays there", str(self._directory))
                continue
            try:
                found.append(self._read(pid))
            except (OSError, ValueError, KeyError, TypeError, RecursionError, MhnosError) as error:
                self.set_aside(pid, _reason(error))
        return found[::-1]

    def set_aside(self, pid: int, reason: str) -> None:
        """Move the files of a process out of the way."""
        folder = self._directory / SET_ASIDE
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for path in (self._log_path(pid), self._record_path(pid)):
                if path.is_symlink() or path.exists():
                    path.rename(_unused(folder, path))
        except OSError as error:
            # It stays in place, and its pid is not used again.
            reason, folder = f"{reason}; it cannot be moved: {error.strerror}", self._directory
        self.on_set_aside(pid, reason, str(folder))

    def _all(self) -> set[int]:
        """Every pid that has a file. Drafts are incomplete and do not count."""
        for path in self._directory.glob("*.new"):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        here = _pids(self._directory)
        self.highest_pid = max(here | _pids(self._directory / SET_ASIDE), default=0)
        return here

    def _read(self, pid: int) -> Ended:
        record = _parsed(_contents(self._record_path(pid)))
        if record.pid != pid:
            raise BadShape(f"the record is that of {record.pid}")
        log = LogWriter(os.open(self._log_path(pid), os.O_RDWR | _SAFELY))
        # Of the descriptors at that time only the log's remains.
        found = replace(record, stdin_open=False, control=False, exit=record.exit or _lost(log.head))
        if found != record:
            self.save(found)
        return Ended(found, log, self)

    def _record_path(self, pid: int) -> Path:
        return self._directory / f"{pid}.json"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


#: Files are opened without following links and without blocking: others may have put anything there.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _contents(path: Path) -> bytes:
    """Raises OSError, and BadShape for anything but a regular file of at most a record's size."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _SAFELY)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadShape("the record is not a regular file")
        data = file.read(bounds.RECORD_FILE_BYTES + 1)
    if len(data) > bounds.RECORD_FILE_BYTES:
        raise BadShape(f"the record has more than {bounds.RECORD_FILE_BYTES} bytes")
    return data


def _parsed(data: bytes) -> ProcessRecord:
    """Raises ValueError (BadShape) or RecursionError unless a server can be told of this record."""
    values: Any = json.loads(data)
    if not isinstance(values, dict):
        raise BadShape("the record is not a JSON object")
    # Records without a version are of version 1.
    version = values.pop("version", 1)
    if version != RECORD_VERSION:
        raise BadShape(f"the record is of version {str(version)[:20]!r}, this is {RECORD_VERSION}")
    _check_record(values, "record")
    if values["exit"] is not None and values["exit"]["reason"] not in REASONS:
        raise BadShape("record.exit.reason is unknown")
    if len(encode(values)) > bounds.MESSAGE_BYTES - bounds.ENVELOPE_BYTES:
        raise BadShape("the record does not fit into a message to a server")
    return ProcessRecord.from_dict(values)


def _pids(directory: Path) -> set[int]:
    """Pids that have files. Other names are ignored."""
    names = (path.name.split(".") for path in directory.glob("*.*"))
    stems = {name[0] for name in names if name[1] in ("json", "log")}
    numbers = {int(stem) for stem in stems if stem.isascii() and stem.isdecimal() and len(stem) <= _DIGITS}
    return {number for number in numbers if number <= _LAST_PID and str(number) in stems}


def _unused(folder: Path, path: Path) -> Path:
    """A name that does not exist yet."""
    target, number = folder / path.name, 0
    while target.is_symlink() or target.exists():
        number += 1
        target = folder / f"{path.name}.{number}"
    return target


def _reason(error: Exception) -> str:
    if isinstance(error, MhnosError):
        return error.message
    if isinstance(error, FileNotFoundError):
        return f"{os.path.basename(error.filename)} is not there"
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror}"
    if isinstance(error, BadShape):
        return str(error)
    return "the record is damaged"


def lost(written: int, evidence: str) -> ExitRecord:
    """The exit record of a process whose end nobody saw."""
    return ExitRecord(
        code=None,
        signal=None,
        reason="lost",
        evidence=evidence,
        runtime_ms=None,
        cpu_ms=None,
        max_rss_bytes=None,
        bytes=written,
        end_time_ms=time.time_ns() // 1_000_000,
    )


def _lost(written: int) -> ExitRecord:
    return lost(written, "the runtime that started it ended before it did; how it ended was not seen")
