"""What each client has typed into one process, exactly once over lost connections and killed servers.

The positions stand in the log's file, so that the next server finds them. Knows offsets; not who is
connected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from mhnos_runtime.errors import InvalidRequest, LimitReached

_NAME, _TYPED, _INTENT, _USED = range(4)


class Slot(Protocol):
    """Words that outlive the server."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class ClientInput:
    """One client's input. accepted: bytes that are typed or wait to be; typed: those that the process has.

    `begin` and `wrote` stand around each write. A server that is killed between the two leaves an intent, of
    which nobody can know whether it came to be: `uncertain_from` says where it begins, until the client types
    on, and so has heard of it. on_typed, on_dropped: whom to tell what was typed, and that no more will be.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self.uncertain_from = slot[_TYPED] if slot[_INTENT] > slot[_TYPED] else None
        self.accepted = max(slot[_TYPED], slot[_INTENT])
        self.on_typed: Callable[[int], None] | None = None
        self.on_dropped: Callable[[], None] | None = None

    @property
    def typed(self) -> int:
        """What is uncertain counts as typed."""
        return self._slot[_TYPED] if self.uncertain_from is None else self._slot[_INTENT]

    def new_part(self, offset: int, data: memoryview) -> memoryview:
        """What of `data` was not accepted before; empty for a repetition.

        Raises InvalidRequest (input-gap) when bytes in front of it are missing.
        """
        if offset > self.accepted:
            raise InvalidRequest(
                f"input begins at {offset}, but only {self.accepted} bytes came before",
                code="input-gap",
                hint="openInput tells where to go on",
            )
        return data[self.accepted - offset :]

    def begin(self, count: int) -> None:
        if self.uncertain_from is not None:
            self._slot[_TYPED], self.uncertain_from = self._slot[_INTENT], None
        self._slot[_INTENT] = self._slot[_TYPED] + count

    def wrote(self, count: int) -> None:
        self._slot[_TYPED] += count
        self._slot[_INTENT] = 0
        if self.on_typed is not None and count:
            self.on_typed(self._slot[_TYPED])

    def drop(self) -> None:
        """The process takes no more; what waited is not typed."""
        if self.on_dropped is not None:
            self.on_dropped()


class NumberedInputs:
    """The clients of one process, as many as there are slots; one that nobody uses gives way to a new one."""

    def __init__(self, slots: list[memoryview]) -> None:
        self._slots = slots
        self._clients: dict[int, ClientInput] = {}

    def open(self, client: str, now_ms: int) -> ClientInput:
        """The client of this name, new or as it was left. Raises LimitReached when all slots are in use."""
        name = int.from_bytes(hashlib.blake2b(client.encode(), digest_size=8).digest()) or 1
        slot = self._find(name)
        slot[_USED] = now_ms
        if name not in self._clients:
            self._clients[name] = ClientInput(slot)
        return self._clients[name]

    def _find(self, name: int) -> memoryview:
        for slot in self._slots:
            if slot[_NAME] == name:
                return slot
        unused = [slot for slot in self._slots if self._is_idle(slot)]
        if not unused:
            raise LimitReached(f"{len(self._slots)} clients type into this process", code="too-many-clients")
        oldest = min(unused, key=lambda slot: int(slot[_USED]))
        self._clients.pop(oldest[_NAME], None)
        for word in (_INTENT, _TYPED, _USED):
            oldest[word] = 0
        oldest[_NAME] = name
        return oldest

    def _is_idle(self, slot: memoryview) -> bool:
        client = self._clients.get(slot[_NAME])
        return client is None or (client.on_typed is None and client.accepted == client.typed)

    def close(self) -> None:
        for slot in self._slots:
            slot.release()
        self._slots = []
