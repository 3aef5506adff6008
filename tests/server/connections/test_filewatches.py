"""What waits for one client: one message a watch, however slow it reads, and a bound for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mhnos_runtime import bounds
from mhnos_runtime.errors import LimitReached, NotFound
from mhnos_runtime.files.changes import Change, Changes
from mhnos_runtime.server.connections.filewatches import FileWatches

VERSION = "0123456789abcdef01234567"


class Client:
    """Takes what there is when it is told to."""

    def __init__(self) -> None:
        self.turns: list[Callable[[], None]] = []
        self.woken = 0
        self.watches = FileWatches(self.turns.append, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def turn(self) -> None:
        turns, self.turns[:] = self.turns[:], []
        for act in turns:
            act()

    def take(self) -> list[dict[str, Any]]:
        found = []
        while (data := self.watches.next()) is not None:
            found.append(json.loads(data))
        assert not self.watches
        return found


def changed(*paths: str, what: Any = "changed", kind: Any = "file") -> Changes:
    changes = Changes()
    for path in paths:
        changes.add(path, Change(what, kind, None if what == "removed" else VERSION), most=100_000)
    return changes


def test_changes_that_wait_are_one_message_by_path() -> None:
    client = Client()
    watch = client.watches.open()
    watch.begin()
    assert not client.watches
    watch.changed(changed("/b", "/a/b"))
    watch.changed(changed("/a", what="removed", kind="directory"))
    watch.changed(changed("/b", what="removed"))
    assert len(client.turns) == 1
    client.turn()
    assert client.woken == 1
    assert client.take() == [
        {
            "type": "filesChanged",
            "watch": 1,
            "changes": [
                {"path": "/a", "what": "removed", "kind": "directory"},
                {"path": "/b", "what": "removed", "kind": "file"},
            ],
        }
    ]
    watch.changed(changed("/c"))
    client.turn()
    (message,) = client.take()
    assert message["changes"] == [{"path": "/c", "what": "changed", "kind": "file", "version": VERSION}]


def test_nothing_is_told_before_the_answer() -> None:
    client = Client()
    watch = client.watches.open()
    watch.changed(changed("/a"))
    assert not client.watches
    assert not client.turns
    watch.begin()
    assert len(client.take()) == 1


def test_the_bound_on_names_is_for_all_watches_of_a_client() -> None:
    client = Client()
    first, second = client.watches.open(), client.watches.open()
    for watch in (first, second):
        watch.begin()
    many = [f"/{number}" for number in range(bounds.NAMED_CHANGES - 1)]
    first.changed(changed(*many))
    second.changed(changed("/a"))
    second.changed(changed("/b"))
    one, other = client.take()
    assert len(one["changes"]) == len(many)
    assert other == {"type": "filesChanged", "watch": 2, "changes": [], "rescan": True} or other == {
        "type": "filesChanged",
        "watch": 2,
        "rescan": True,
    }
    second.changed(changed("/c"))
    assert [change["path"] for change in client.take()[0]["changes"]] == ["/c"]


def test_names_that_are_not_utf8_are_shown_and_marked() -> None:
    client = Client()
    watch = client.watches.open()
    watch.begin()
    watch.changed(changed("/a\udcff"))
    (message,) = client.take()
    assert [(each["path"], each["opaque"]) for each in message["changes"]] == [("/a\\xff", True)]


def test_the_end_comes_with_what_came_before_and_frees_the_number() -> None:
    client, left = Client(), list[str]()
    watch = client.watches.open()
    watch.entered(lambda: left.append("left"))
    watch.begin()
    watch.changed(changed("/a"))
    watch.ended("It is gone")
    (message,) = client.take()
    assert message["ended"] == "It is gone"
    assert len(message["changes"]) == 1
    assert left == ["left"]
    with pytest.raises(NotFound):
        client.watches.find(1)
    watch.changed(changed("/b"))
    assert not client.watches


def test_a_client_has_so_many_watches() -> None:
    client = Client()
    for number in range(1, bounds.WATCHES + 1):
        assert client.watches.open().number == number
    with pytest.raises(LimitReached):
        client.watches.open()
    client.watches.find(5).close()
    assert client.watches.open().number == bounds.WATCHES + 1


def test_a_client_that_leaves_lets_go_also_of_what_comes_later() -> None:
    client, left = Client(), list[int]()
    first, second = client.watches.open(), client.watches.open()
    first.entered(lambda: left.append(1))
    first.begin()
    first.changed(changed("/a"))
    client.watches.close()
    second.entered(lambda: left.append(2))
    assert left == [1, 2]
    assert not client.watches
    client.watches.close()
