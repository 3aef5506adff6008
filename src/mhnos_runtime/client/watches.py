"""Watches of files, for those who listen over connections that come and go. Must not know sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from mhnos_runtime.client.carrier import Carrier
from mhnos_runtime.client.errors import ClientError, ConnectionLost
from mhnos_runtime.client.pending import PendingRequests
from mhnos_runtime.client.subscription import Subscription
from mhnos_runtime.wire import messages as m

#: Events that wait for somebody who listens slowly, each of 1,000 changes at most: some 20 MB.
MAX_WAITING = 64


class Watches:
    """All of one runtime, by the number that the server has for each on this connection."""

    def __init__(self, carrier: Carrier, pending: PendingRequests) -> None:
        self._carrier = carrier
        self._pending = pending
        self._all: dict[Watch, int | None] = {}

    async def enter(self, watch: Watch) -> None:
        """It is told of what changes from the server's answer on. Raises as Runtime.request."""
        on_answer = partial(self._number, watch)
        await self._carrier.request(watch.request(), m.FilesWatched, resend=True, on_answer=on_answer)

    def leave(self, watch: Watch) -> None:
        if (number := self._all.pop(watch, None)) is not None:
            self._carrier.tell(m.UnwatchFiles(watch=number))

    def take(self, event: m.FilesChanged) -> None:
        for watch, number in list(self._all.items()):
            if number == event.watch:
                watch.take(event)
                if event.ended is not None:
                    del self._all[watch]

    def resume(self) -> Sequence[bytes]:
        """What a new connection is told, on which the server has no watch yet. Nobody knows what changed
        before it answers."""
        self._all = dict.fromkeys(self._all)
        return [self._resumption(watch) for watch in self._all]

    def end(self, error: ClientError) -> None:
        """Nothing will be told any more, and why."""
        for watch in self._all:
            watch.end(error)
        self._all.clear()

    def _number(self, watch: Watch, answer: m.Message) -> None:
        if isinstance(answer, m.FilesWatched):
            self._all[watch] = answer.watch

    def _resumption(self, watch: Watch) -> bytes:
        """A request whose answer is handled by callbacks: no task waits for it."""
        number, waiting = self._pending.add(
            watch.request(), resend=False, on_answer=lambda answer: self._resumed(watch, answer)
        )
        waiting.future.add_done_callback(lambda future: self._settled(watch, number, future))
        return waiting.payload

    def _resumed(self, watch: Watch, answer: m.Message) -> None:
        if isinstance(answer, m.FilesWatched):
            if watch not in self._all:  # left while it was asked for
                self._carrier.tell(m.UnwatchFiles(watch=answer.watch))
                return
            self._all[watch] = answer.watch
            watch.take(m.FilesChanged(watch=answer.watch, rescan=True))

    def _settled(self, watch: Watch, number: int, future: asyncio.Future[m.Message]) -> None:
        self._pending.discard(number)
        error = None if future.cancelled() else future.exception()
        # After a lost connection the next one asks again.
        if isinstance(error, ClientError) and not isinstance(error, ConnectionLost) and watch in self._all:
            del self._all[watch]
            watch.end(error)


class Watch(Subscription[m.FilesChanged]):
    """What changes below a directory from now on: an async iterator of FilesChanged, see `Files.watch`.

    It begins when it is entered as a context, else with the first `anext`. An event with `rescan` says that
    changes are not named, since there were too many, there was no connection, or this is read too slowly:
    what is below the directory is to be listed again. It ends behind an event with `ended`. Raises
    RequestFailed, and what ended the connection for good.
    """

    def __init__(self, watches: Watches, path: str, ignore: Sequence[str] | None) -> None:
        super().__init__()
        self._watches = watches
        self._path = path
        self._ignore = None if ignore is None else list(ignore)

    async def _enter(self) -> None:
        await self._watches.enter(self)

    def _leave(self) -> None:
        self._watches.leave(self)

    # What the watches use

    def request(self) -> m.WatchFiles:
        """A new message each time, since each gets an id of its own."""
        return m.WatchFiles(path=self._path, ignore=self._ignore)

    def take(self, event: m.FilesChanged) -> None:
        """One that finds too many waiting stands for all of them."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            event = m.FilesChanged(watch=event.watch, rescan=True, ended=event.ended)
        self._add(event, last=event.ended is not None)
