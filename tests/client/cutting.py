"""A TCP proxy that cuts connections after so many bytes. Knows no protocol."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType

from mhnos_runtime.client.discovery import Target

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class CuttingProxy:
    """A context manager. budgets: how many bytes each connection may carry, both ways together, one after the
    other; those after the last one may carry any number. `cuts`: how many were cut."""

    def __init__(self, target: Target, budgets: Iterable[int], *, resets: bool = True) -> None:
        self._there = ("127.0.0.1", int(target.url.rpartition(":")[2].partition("/")[0]))
        self._budgets: Iterator[int] = iter(budgets)
        self._resets = resets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self._open: set[socket.socket] = set()
        self._pumps: list[threading.Thread] = []
        self.cuts = self.connections = 0
        self.target = target._replace(url=f"http://127.0.0.1:{self._listener.getsockname()[1]}")

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        self.hang_up()
        for pump in self._pumps:
            pump.join(10)

    def hang_up(self) -> None:
        """End the connections that there are."""
        for each in [*self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                far = socket.create_connection(self._there, 10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._open |= {near, far}
            left = [next(self._budgets, -1)]
            lock = threading.Lock()
            for one, other in ((near, far), (far, near)):
                pump = threading.Thread(target=self._pump, args=(one, other, left, lock))
                self._pumps.append(pump)
                pump.start()

    def _pump(self, one: socket.socket, other: socket.socket, left: list[int], lock: threading.Lock) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 14):
                with lock:
                    most = len(data) if left[0] < 0 else min(left[0], len(data))
                    left[0] = -1 if left[0] < 0 else left[0] - most
                    ends = left[0] == 0
                other.sendall(data[:most])
                if ends:
                    self.cuts += 1
                    break
        for each in (one, other):
            with contextlib.suppress(OSError):
                if self._resets:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            self._open.discard(each)
