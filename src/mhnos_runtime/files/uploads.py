"""Uploads that outlive connections and servers: what has arrived is a kept draft beside its target, and a
record in the state directory says whose it is. Knows files and records; not how the data comes.

Blocks. What is in the file is what has arrived: its size is the offset, its mtime the last progress, so that
no number beside it can be wrong. The record is written before the draft has its name, and removed after it,
so that a server that is killed leaves no draft that nobody knows of.
"""

from __future__ import annotations

import hmac
import os
import stat
import threading
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Protocol, Self

import msgspec

from mhnos_runtime.errors import Conflict, InvalidRequest, LimitReached, MhnosError, NotFound
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import ANYTHING, Condition, Draft, discard_kept, gone, look_at_kept
from mhnos_runtime.files.paths import normalise, shown
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.files.upload_records import Done, Record, Records, is_id, new_id
from mhnos_runtime.files.version import version_of

#: An upload that has made no progress for so long is removed.
EXPIRY_SECONDS = 7 * 86_400.0
#: How long a finished one is remembered, for a client that lost the answer to its last request.
DONE_SECONDS = 86_400.0
#: Unfinished ones, of all and of one principal, and finished ones. Each is a file of some KiB and as much in
#: memory; a page that uploads a folder has a few at a time.
MAX_UPLOADS = 1024
MAX_UPLOADS_OF_ONE = 256
MAX_DONE = 1024
#: At its own bound, a principal's upload that has rested for so long gives way to a new one.
RESTING_SECONDS = 3600.0


class Digest(Protocol):
    """A hash of hashlib."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """An upload to make. length: None: told later. metadata: as the client sent it."""

    path: str
    length: int | None
    condition: Condition = ANYTHING
    mode: int | None = None
    mtime_ms: int | None = None
    metadata: str = ""


@dataclass(slots=True)
class Checksum:
    """What the bytes of one request must have as digest."""

    running: Digest
    expected: bytes


@dataclass(frozen=True, slots=True)
class State:
    """An upload at one moment. offset: bytes that have arrived, and are durable. expires: seconds since the
    epoch."""

    record: Record
    offset: int
    expires: float


class Uploads:
    """All uploads of a runtime. Thread-safe; of one upload, one thing at a time.

    Every method may raise OSError, Unavailable and LimitReached (disk-full). `workspace` is what the asking
    grant may have of the whole one.
    """

    def __init__(self, records: Records, whole: Workspace, now: Callable[[], float] = time.time) -> None:
        self._stored = records
        self._whole = whole
        self._now = now
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._loaded = False

    def create(self, workspace: Workspace, wanted: Wanted, principal: str) -> State:
        """Make one; an empty file is in its place at once. Raises what Draft raises, and LimitReached."""
        self._load()
        draft = Draft(workspace, wanted.path, wanted.condition, wanted.mode)
        try:
            draft.require_space(wanted.length or 0)
            record = self._record_of(wanted, draft, principal)
            self._admit(record)
        except BaseException:
            draft.drop()
            raise
        try:
            self._stored.save(record)
            draft.keep(record.kept)
        except BaseException:
            draft.drop()
            self._forget(record.id)
            raise
        draft.close()
        with self.open(workspace, record) as opened:
            try:
                return opened.finish()
            except BaseException:
                self.remove(workspace, record)
                raise

    def find(self, upload_id: str, principal: str) -> Record:
        """Raises NotFound, also for one of somebody else."""
        self._load()
        record = self._records.get(upload_id) if is_id(upload_id) else None
        if record is None or not hmac.compare_digest(record.principal.encode(), principal.encode()):
            raise NotFound("There is no such upload", hint="begin again")
        return record

    def open(self, workspace: Workspace, record: Record) -> Opened:
        """Go on with one. Raises NotFound (gone): it has expired, or its data is no longer there."""
        record, draft = self._again(workspace, record)
        return Opened(self, record, draft)

    def look(self, workspace: Workspace, record: Record) -> State:
        """What has arrived of one, which may be written at this moment. Raises as `open` does."""
        record, draft = self._again(workspace, record)
        if draft is None:
            return State(record, record.length or 0, self.expiry(record, 0))
        try:
            draft.sync()
            size, progress = draft.status.st_size, draft.status.st_mtime
        finally:
            draft.close()
        if record.unchecked_from is not None:
            size = min(size, record.unchecked_from)
        return State(record, size, self.expiry(record, progress))

    def remove(self, workspace: Workspace, record: Record) -> None:
        """End one. A finished one's file stays."""
        if record.done is None:
            with suppress(NotFound):
                discard_kept(workspace, record.path, record.kept)
        self._forget(record.id)

    def sweep(self, busy: Container[str] = ()) -> Steps[None]:
        """Remove what has expired, one a step; busy: ids that are in use."""
        self._load()
        for record in list(self._records.values()):
            yield
            if record.id not in busy and self._expiry_now(record) < self._now():
                self._remove_quietly(record)

    def expiry(self, record: Record, progress: float) -> float:
        """Seconds since the epoch. progress: when something of it arrived last."""
        if record.done is not None:
            return record.done.at + DONE_SECONDS
        return max(progress, record.created) + EXPIRY_SECONDS

    def replace(self, record: Record) -> Record:
        """Note that one has changed, durable when this returns."""
        self._stored.save(record)
        self._put(record)
        return record

    def note_done(self, record: Record, status: os.stat_result) -> Record:
        """Its file is in place, whether or not that can be noted: the next server finds the file there."""
        done = Done(
            version=version_of(status),
            mode=stat.S_IMODE(status.st_mode),
            mtime_ms=status.st_mtime_ns // 1_000_000,
            at=self._now(),
        )
        record = msgspec.structs.replace(record, done=done)
        with suppress(MhnosError):
            self._stored.save(record)
        self._put(record)
        return record

    def _load(self) -> None:
        with self._lock:
            if not self._loaded:
                self._records.update((record.id, record) for record in self._stored.load())
                self._loaded = True

    def _put(self, record: Record) -> None:
        with self._lock:
            self._records[record.id] = record
            done = [each for each in self._records.values() if each.done is not None]
            oldest = done[0].id if len(done) > MAX_DONE else None
        if oldest is not None:
            self._forget(oldest)

    def _forget(self, upload_id: str) -> None:
        self._stored.remove(upload_id)
        with self._lock:
            self._records.pop(upload_id, None)

    def _record_of(self, wanted: Wanted, draft: Draft, principal: str) -> Record:
        condition = wanted.condition
        return Record(
            id=new_id(),
            principal=principal,
            path=normalise(wanted.path),
            kept=draft.kept(),
            length=wanted.length,
            created=self._now(),
            metadata=wanted.metadata,
            mode=wanted.mode,
            mtime_ms=wanted.mtime_ms,
            versions=condition.versions,
            exists=condition.exists,
            absent=condition.absent,
        )

    def _admit(self, record: Record) -> None:
        """Count it from now on. Raises LimitReached."""
        with self._lock:
            own = self._unfinished(record.principal)
        if len(own) >= MAX_UPLOADS_OF_ONE:
            self._make_room(own)
        with self._lock:
            number, all_ = len(self._unfinished(record.principal)), len(self._unfinished())
            if number >= MAX_UPLOADS_OF_ONE or all_ >= MAX_UPLOADS:
                raise LimitReached(
                    f"{number} uploads of this token and {all_} of all are unfinished: no more can begin",
                    hint="finish some, or end them by DELETE",
                )
            self._records[record.id] = record

    def _unfinished(self, principal: str | None = None) -> list[Record]:
        """Of one principal, or of all. With the lock."""
        found = [each for each in self._records.values() if each.done is None]
        return found if principal is None else [each for each in found if each.principal == principal]

    def _make_room(self, own: Sequence[Record]) -> None:
        """Remove the one that has rested for longest, if that is long enough."""
        when, longest = min(((self._expiry_now(each), each) for each in own), key=itemgetter(0))
        if when < self._now() + EXPIRY_SECONDS - RESTING_SECONDS:
            self._remove_quietly(longest)

    def _expiry_now(self, record: Record) -> float:
        try:
            progress = 0.0 if record.done else look_at_kept(self._whole, record.path, record.kept).st_mtime
        except MhnosError:
            progress = 0.0
        return self.expiry(record, progress)

    def _remove_quietly(self, record: Record) -> None:
        """Where the workspace cannot be opened now, it is tried again by the next sweep."""
        try:
            self.remove(self._whole, record)
        except MhnosError as error:
            if not error.retry:
                self._forget(record.id)

    def _again(self, workspace: Workspace, record: Record) -> tuple[Record, Draft | None]:
        """What has arrived, None for one that is done. Raises NotFound (gone)."""
        if record.done is not None:
            return record, None
        try:
            draft = Draft(workspace, record.path, record.condition, record.mode, again=record.kept)
        except NotFound:
            return self._landed(workspace, record), None
        try:
            self._check(record, draft.status)
        except NotFound:
            draft.close()
            raise
        return record, draft

    def _check(self, record: Record, status: os.stat_result) -> None:
        """Raises NotFound (gone)."""
        if self.expiry(record, status.st_mtime) < self._now():
            raise NotFound("This upload has made no progress for 7 days", code="gone", hint="begin again")
        if record.length is not None and status.st_size > record.length:
            raise NotFound(
                f"A process has changed what was written so far: {shown(record.path)}",
                code="gone",
                hint="begin again",
            )

    def _landed(self, workspace: Workspace, record: Record) -> Record:
        """A server that was killed after the file had taken its place did not note it. Raises NotFound
        (gone)."""
        status: os.stat_result | None = None
        # Its folder may be gone, too.
        with suppress(NotFound), workspace.resolve(record.path) as place:
            status = os.fstat(place.fd) if place.fd >= 0 else None
        if status is None or (status.st_dev, status.st_ino) != record.kept[1:]:
            raise gone(record.path)
        if status.st_size != record.length:
            raise gone(record.path)
        return self.note_done(record, status)


class Opened:
    """One upload, which nobody else writes meanwhile. Holds as many descriptors as a draft."""

    def __init__(self, uploads: Uploads, record: Record, draft: Draft | None) -> None:
        """draft: None for one that is done."""
        self._uploads = uploads
        self._draft = draft
        self._checksum: Checksum | None = None
        self.record = record
        self.offset = record.length or 0
        if draft is not None:
            try:
                self._begin(draft)
            except BaseException:
                draft.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, draft: Draft) -> None:
        self.offset = draft.status.st_size
        if self.record.unchecked_from is not None:
            self._forget_unchecked(draft, self.record.unchecked_from)

    def set_length(self, length: int) -> None:
        """Of one whose length was not known. Raises InvalidRequest."""
        if self.record.length == length:
            return
        if self.record.length is not None or length < self.offset:
            raise InvalidRequest(f"The length of this upload is {self.record.length or 'more'}, not {length}")
        if self._draft is not None:
            self._draft.require_space(length - self.offset)
        self.record = self._uploads.replace(msgspec.structs.replace(self.record, length=length))

    def expect(self, checksum: Checksum) -> None:
        """What is written from now on counts only if it has this checksum."""
        if self._draft is not None:
            self._note_unchecked(self.offset)
            self._checksum = checksum

    def write(self, chunk: bytes) -> None:
        """Raises InvalidRequest (too-large) where there is more than its length; none of the chunk is
        written then."""
        room = None if self.record.length is None else self.record.length - self.offset
        if room is not None and len(chunk) > room:
            raise InvalidRequest(f"More than the {self.record.length} bytes of this upload", code="too-large")
        if self._draft is None or not chunk:
            return
        try:
            self._draft.write_durably(chunk)
        finally:
            # A full disk may have taken some of it.
            self.offset = self._draft.status.st_size
        if self._checksum is not None:
            self._checksum.running.update(chunk)

    def state(self) -> State:
        """Durable when this returns."""
        if self._draft is None:
            return State(self.record, self.offset, self._uploads.expiry(self.record, 0))
        self._draft.sync()
        return State(self.record, self.offset, self._uploads.expiry(self.record, self._draft.status.st_mtime))

    def finish(self) -> State:
        """The end of a request: what it brought stays; a whole file takes its place. Raises Conflict, with
        code checksum-mismatch where the request's bytes were others than was meant, and they are forgotten
        then; otherwise as Draft.commit."""
        if self._draft is not None and self._checksum is not None:
            self._compare(self._draft, self._checksum)
        state = self.state()
        if self._draft is None or self.offset != self.record.length:
            return state
        mtime_ms = self.record.mtime_ms
        written = self._draft.commit(None if mtime_ms is None else mtime_ms * 1_000_000, durable=True)
        self._draft = None
        self.record = self._uploads.note_done(self.record, written.status)
        return replace(state, record=self.record, expires=self._uploads.expiry(self.record, 0))

    def close(self) -> None:
        """Leave it as it is, for another request."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        if self._checksum is not None and self.record.unchecked_from is not None:
            with suppress(OSError, MhnosError):
                self._forget_unchecked(draft, self.record.unchecked_from)
        draft.close()

    def _compare(self, draft: Draft, checksum: Checksum) -> None:
        self._checksum, start = None, self.record.unchecked_from
        right = hmac.compare_digest(checksum.running.digest(), checksum.expected)
        if right or start is None:
            draft.sync()
            self._note_unchecked(None)
            return
        self._forget_unchecked(draft, start)
        raise Conflict("The bytes have another checksum", code="checksum-mismatch", hint="send them again")

    def _forget_unchecked(self, draft: Draft, start: int) -> None:
        draft.truncate(min(start, self.offset))
        draft.sync()
        self.offset = min(start, self.offset)
        self._note_unchecked(None)

    def _note_unchecked(self, start: int | None) -> None:
        self.record = self._uploads.replace(msgspec.structs.replace(self.record, unchecked_from=start))
