"""The server's life: started, restarted when it dies or hangs, stopped. Owns the control channel.

Knows one child and its channel; not what is said on it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from mhnos_runtime.channel import (
    ALIVE,
    RETRY_SECONDS,
    Channel,
    Descriptors,
    Disconnected,
    Message,
    NoMessage,
)
from mhnos_runtime.supervisor import child, tree
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.loop import EPOLLIN, EPOLLOUT, Loop

#: After a shorter life a server is restarted only after a pause.
SHORT_LIFE_SECONDS = 2.0
MAX_RESTART_PAUSE_SECONDS = 5.0
#: The pause after a start that failed for lack of descriptors or tasks.
NONE_LEFT_SECONDS = 1.0
#: How long a server may take to say goodbye to its clients.
STOP_SECONDS = 3.0
#: A server that is silent for this long hangs. It sends a notice once a second; a large request may keep it
#: busy for a second or two. Well below the stall time of 10 s, so that its clients are back before their
#: holds lapse.
HANG_SECONDS = 5.0


class ServerKeeper:
    """Keeps one server running.

    introduce: called when a new server listens. on_message: for each message. on_alive: each time the
    server's event loop shows that it turns, unless it is being stopped. on_stopped: when the server has ended
    and is not to be restarted. Data that is no message is dropped: processes must not suffer from a broken
    server.
    """

    def __init__(
        self,
        loop: Loop,
        config: Config,
        log: Log,
        introduce: Callable[[], None],
        on_message: Callable[[Message], None],
        on_stopped: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._config = config
        self._log = log
        self._introduce = introduce
        self._on_message = on_message
        self._on_stopped = on_stopped
        self.on_alive: Callable[[], None] = lambda: None
        self.os_pid = 0
        self._channel: Channel | None = None
        self._started = 0.0
        self._heard = 0.0
        self._short_lives = 0
        self._stopping = False
        self._retry_due = False

    def start(self) -> None:
        try:
            ours, theirs = Channel.pair()
            with theirs:
                self.use(Channel(ours))
                arguments = [*self._config.server, str(theirs.fileno())]
                self.os_pid = child.start_server(arguments, theirs.fileno(), self._config.listeners)
        except OSError as error:
            self._log.write("error", "no server can be started now", error=error.strerror)
            self._drop_channel()
            self._loop.after(NONE_LEFT_SECONDS, self._start_again)
            return
        self._started = time.monotonic()
        self._heard = 0.0
        self._watch_dog(self.os_pid)
        self._introduce()

    def use(self, channel: Channel) -> None:
        """Listen to a server at the other end. Raises OSError, and closes the channel then."""
        try:
            self._loop.watch(channel.fileno(), self._on_channel)
        except OSError:
            channel.close()
            raise
        self._channel = channel

    def send(self, body: dict[str, Any], descriptors: Descriptors = ()) -> bool:
        """Send to the server, and say whether there is one; the next one is told everything anyway."""
        self._use(lambda channel: channel.send(body, descriptors))
        return self._channel is not None

    def notify(self, kind: bytes, pid: int) -> None:
        self._use(lambda channel: channel.notify(kind, pid))

    def stop(self) -> None:
        """Stop the server for good; on_stopped follows, at once if there is none."""
        if not self.os_pid:
            self._stopping = True
            self._on_stopped()
            return
        if self._stopping:
            return
        self._stopping = True
        server = [self.os_pid]
        tree.send(server, signal.SIGTERM)
        self._loop.after(STOP_SECONDS, lambda: tree.send(server, signal.SIGKILL))

    def resume(self) -> None:
        """Keep a server running again after `stop`."""
        self._stopping = False
        self.start()

    def ended(self, status: int) -> None:
        """The server has been reaped."""
        self.os_pid = 0
        self._drop_channel()
        if self._stopping:
            self._on_stopped()
            return
        lived = time.monotonic() - self._started
        self._short_lives = self._short_lives + 1 if lived < SHORT_LIFE_SECONDS else 0
        code = os.waitstatus_to_exitcode(status)
        how = {"code": code} if code >= 0 else {"signal": tree.signal_name(-code)}
        self._log.write("error", "the server ended; starting it again", **how)
        pause = min(MAX_RESTART_PAUSE_SECONDS, 0.5 * max(0, self._short_lives - 1))
        self._loop.after(pause, self._start_again)

    def _start_again(self) -> None:
        if not self._stopping and not self.os_pid:
            self.start()

    def _watch_dog(self, os_pid: int, silent_since: float = 0.0) -> None:
        """Kill a server that has spoken and then fell silent. Everything follows as after any other death.

        Only at the second look: after a pause of the whole machine its notices are still unread.
        """
        if os_pid != self.os_pid:
            return
        silent = bool(self._heard) and time.monotonic() - self._heard > HANG_SECONDS
        if silent and self._heard == silent_since:
            self._log.write("error", "the server hangs; ending it", os_pid=os_pid)
            tree.send([os_pid], signal.SIGKILL)
            return
        since = self._heard if silent else 0.0
        self._loop.after(HANG_SECONDS / 4, lambda: self._watch_dog(os_pid, since))

    def _use(self, action: Callable[[Channel], None]) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            action(channel)
        except Disconnected:
            self._drop_channel()
            return
        if self._channel is not channel:
            return
        # A server that leaves answers unread gets no more questions read, or answers would pile up.
        waits = channel.pending and not channel.postponed
        events = (0 if channel.congested else EPOLLIN) | (EPOLLOUT if waits else 0)
        if channel.postponed and not self._retry_due:
            self._retry_due = True
            self._loop.after(RETRY_SECONDS, self._retry)
        if events != channel.events:
            channel.events = events
            self._loop.watch(channel.fileno(), self._on_channel, events)

    def _retry(self) -> None:
        self._retry_due = False
        self._use(lambda channel: channel.flush())

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None
            # A server that closed its end without exiting must not run beside its successor.
            tree.send([self.os_pid] if self.os_pid else [], signal.SIGKILL)

    def _on_channel(self) -> None:
        self._use(self._take_message)

    def _take_message(self, channel: Channel) -> None:
        channel.flush()
        if channel.congested:
            return
        try:
            message = channel.receive()
        except NoMessage as error:
            self._log.write("error", "a message of the server was refused", reason=repr(str(error)))
            return
        if message is None:
            return
        if message.kind == ALIVE:
            self._heard = time.monotonic()
            if not self._stopping:
                self.on_alive()
        else:
            self._on_message(message)
