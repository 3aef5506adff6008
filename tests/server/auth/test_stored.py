"""Stored grants beside their file: who is found, what is kept when, and faults of the disk and of others."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import InvalidRequest, LimitReached, NotFound, Unavailable
from mhnos_runtime.server.auth import stored as module
from mhnos_runtime.server.auth.grantfile import MAX_GRANTS, GrantFile, Rights, Stored
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.stored import MAX_LIFETIME_MS, StoredGrants
from mhnos_runtime.server.auth.token import digest_of
from tests.server.client import eventually

VIEW = [Scope.VIEW]


class Disk(GrantFile):
    """Counts what is written. full: whether nothing can be. gate: what a write waits for, in its thread."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.written = 0
        self.full = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def save(self, grants: Sequence[Stored]) -> None:
        self.entered.set()
        self.gate.wait(20)
        if self.full:
            raise Unavailable("The grants could not be written: No space left on device", hint="look at it")
        super().save(grants)
        self.written += 1


class Bench:
    """A store on a real file, with a clock that is set by hand."""

    def __init__(self, state_dir: Path) -> None:
        state_dir.chmod(0o700)
        self.state_dir = state_dir
        self.now_s = 1_000_000.0
        self.live = Live(asyncio.get_running_loop(), lambda: self.now_s)
        self.disk = Disk(state_dir)
        self.grants = self.store(self.disk)

    def store(self, file: GrantFile, server_id: str = "one") -> StoredGrants:
        return StoredGrants(file, self.live, asyncio.get_running_loop(), server_id, lambda: self.now_s)

    def next_life(self, server_id: str = "one") -> StoredGrants:
        """The store of the next server."""
        return self.store(GrantFile(self.state_dir), server_id)

    async def create(self, name: str, lifetime_ms: int | None = None, **limits: Any) -> str:
        return (await self.grants.create(Rights(name, VIEW, **limits), lifetime_ms))[1]

    def names(self, grants: StoredGrants | None = None) -> list[str]:
        return [each.name for each in (grants or self.grants).in_force()]


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits a minute in use comes in a moment."""
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.01)


async def until(check: Callable[[], bool]) -> None:
    async def met() -> bool:
        return check()

    await eventually(met)


async def test_each_token_finds_its_own_grant(bench: Bench) -> None:
    ann, bob = await bench.create("ann"), await bench.create("bob", processes=[7], paths=["/a"], ports=[80])
    found = bench.grants.find(bob)
    assert found is not None
    assert (found.principal, found.scopes) == ("token:bob", frozenset(VIEW))
    assert (found.processes, found.paths, found.ports) == (frozenset([7]), ("/a",), frozenset([80]))
    for wrong in ("", ann[:-1], ann + "x", ann.swapcase(), ann + "\n", "x" * 10**6, "\udcff", "é" * 43):
        assert bench.grants.find(wrong) is None
    assert ann not in (bench.state_dir / "grants.json").read_text()
    assert ann not in repr(vars(bench.grants))


async def test_a_thousand_grants_are_told_apart_and_one_more_than_the_most_is_refused(bench: Bench) -> None:
    grants = [
        Stored(name=f"a{n}", scopes=VIEW, digest=digest_of(f"secret-{n}").hex(), created=1)
        for n in range(MAX_GRANTS - 1)
    ]
    await asyncio.to_thread(GrantFile(bench.state_dir).save, grants)
    bench.grants = bench.next_life()
    last = await bench.create("last")
    for n in (0, 500, MAX_GRANTS - 2):
        found = bench.grants.find(f"secret-{n}")
        assert found is not None
        assert found.principal == f"token:a{n}"
    with pytest.raises(LimitReached):
        await bench.create("one more")
    await bench.grants.revoke("a500")
    assert bench.grants.find("secret-500") is None
    await bench.create("one more")
    assert len(bench.names(bench.next_life())) == MAX_GRANTS
    assert bench.next_life().find(last) is not None


async def test_an_expired_one_is_nobody_s_and_gives_its_name_and_place_back(bench: Bench) -> None:
    old = await bench.create("ann", lifetime_ms=1000)
    bench.now_s += 0.999
    assert bench.grants.find(old) is not None
    bench.now_s += 0.001
    assert bench.grants.find(old) is None
    assert bench.names() == []
    ended: list[int] = []
    with bench.live.entered(bench.grants._by_name["ann"].grant(), lambda: ended.append(1)):
        pass
    new = await bench.create("ANN")
    assert bench.grants.find(old) is None
    assert bench.grants.find(new) is not None


async def test_the_successor_of_a_name_has_none_of_its_connections(bench: Bench) -> None:
    """The wall clock was set forward, and what goes on looks at it once a minute only."""
    await bench.create("ann", lifetime_ms=1000)
    ended: list[int] = []
    with bench.live.entered(bench.grants._by_name["ann"].grant(), lambda: ended.append(1)):
        bench.now_s += 2
        await bench.create("ann")
        assert ended == [1]


async def test_a_grant_of_processes_ends_with_the_start_that_they_belong_to(bench: Bench) -> None:
    """Pids begin anew once no record of the last ones is kept: another process would have been shown."""
    limited, free = await bench.create("limited", processes=[1000]), await bench.create("free")
    assert bench.next_life("one").find(limited) is not None
    later = bench.next_life("two")
    assert later.find(limited) is None
    assert bench.names(later) == ["free"]
    assert later.find(free) is not None


# What is written when


async def test_the_last_use_is_written_once_for_many_uses(bench: Bench, soon: None) -> None:
    token = await bench.create("ann")
    assert bench.disk.written == 1
    for _ in range(100):
        bench.now_s += 1
        assert bench.grants.find(token) is not None
    assert bench.disk.written == 1
    await until(lambda: bench.disk.written == 2)
    assert bench.next_life().in_force()[0].last_used == round(bench.now_s * 1000)
    await bench.grants.close()
    assert bench.disk.written == 2


async def test_the_last_use_is_written_at_the_end(bench: Bench) -> None:
    token = await bench.create("ann")
    bench.grants.find(token)
    await bench.grants.close()
    assert bench.disk.written == 2
    assert bench.next_life().in_force()[0].last_used == round(bench.now_s * 1000)


# Faults of the disk


async def test_no_grant_is_made_that_could_not_be_written(bench: Bench) -> None:
    before = await bench.create("before")
    bench.disk.full = True
    with pytest.raises(Unavailable, match="No space left on device"):
        await bench.create("ann")
    assert bench.names() == bench.names(bench.next_life()) == ["before"]
    assert bench.grants.find(before) is not None
    bench.disk.full = False
    await bench.create("ann")
    assert bench.names(bench.next_life()) == ["ann", "before"]


async def test_a_revocation_is_in_force_though_it_cannot_be_written(bench: Bench) -> None:
    token = await bench.create("ann")
    ended: list[int] = []
    grant = bench.grants.find(token)
    assert grant is not None
    bench.disk.full = True
    with bench.live.entered(grant, lambda: ended.append(1)):
        with pytest.raises(Unavailable, match="is revoked, but only until") as caught:
            await bench.grants.revoke("ann")
        assert ended == [1]
    assert "revoke it once more" in caught.value.hint
    assert bench.grants.find(token) is None
    assert bench.names() == []
    with pytest.raises(Unavailable):
        await bench.grants.revoke("ANN")
    bench.disk.full = False
    await bench.grants.revoke("ann")
    assert bench.names(bench.next_life()) == []
    with pytest.raises(NotFound):
        await bench.grants.revoke("ann")


async def test_what_could_not_be_written_is_tried_again(
    bench: Bench, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.create("ann")
    bench.disk.full = True
    with pytest.raises(Unavailable):
        await bench.grants.revoke("ann")
    await until(lambda: "the stored grants could not be written" in caplog.text)
    bench.disk.full = False
    await until(lambda: bench.disk.written == 2)
    assert bench.names(bench.next_life()) == []


async def test_a_revocation_does_not_wait_for_a_disk_that_hangs(bench: Bench) -> None:
    token = await bench.create("ann")
    bench.disk.gate.clear()
    bench.disk.entered.clear()
    creating = asyncio.create_task(bench.create("bob"))
    await asyncio.to_thread(bench.disk.entered.wait, 20)
    revoking = asyncio.create_task(bench.grants.revoke("ann"))
    await asyncio.sleep(0)
    assert bench.grants.find(token) is None
    # Whoever asked leaves: what was begun is ended all the same, one after the other.
    creating.cancel()
    revoking.cancel()
    await asyncio.gather(creating, revoking, return_exceptions=True)
    bench.disk.gate.set()
    await bench.grants.close()
    assert bench.names(bench.next_life()) == bench.names() == ["bob"]


async def test_many_at_once_are_all_kept(bench: Bench) -> None:
    await asyncio.gather(*(bench.create(f"a{n}") for n in range(20)))
    await asyncio.gather(*(bench.grants.revoke(f"a{n}") for n in range(0, 20, 2)), bench.create("b"))
    assert bench.names(bench.next_life()) == bench.names()
    assert len(bench.names()) == 11


async def test_two_of_a_name_at_once_are_one(bench: Bench) -> None:
    done = await asyncio.gather(*(bench.create(name) for name in ("ann", "Ann")), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["InvalidRequest", "str"]
    assert len(bench.names()) == 1


# A file that somebody else changes


async def test_a_file_that_is_changed_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process could open the file to others, and the next server would not have read it any more; and put
    another in its place, which the next server would have followed."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    bench = Bench(tmp_path)
    path = tmp_path / "grants.json"
    await bench.create("ann")
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    evil = [Stored(name="evil", scopes=list(Scope), digest="e" * 64, created=1)]
    await asyncio.to_thread(GrantFile(other).save, evil)
    for change in (
        lambda: path.chmod(0o666),
        path.unlink,
        lambda: (other / "grants.json").rename(path),
        lambda: path.write_text("{"),
    ):
        before = bench.disk.written
        change()
        await until(lambda before=before: bench.disk.written > before)  # type: ignore[misc]
        assert not bench.disk.changed()
        assert [row["name"] for row in json.loads(path.read_text())["grants"]] == ["ann"]
    # Whoever changes it to and fro must not fill the log.
    assert caplog.text.count("is written anew") == 1
    await bench.grants.close()


async def test_a_damaged_file_is_told_in_the_log_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    (tmp_path / "grants.json").write_text("{")
    (tmp_path / "grants.json").chmod(0o600)
    bench = Bench(tmp_path)
    assert bench.names() == []
    assert "the stored grants cannot be used; there are none now" in caplog.text
    await until(lambda: bench.disk.written == 1)
    assert GrantFile(tmp_path).load() == ([], "")
    await bench.grants.close()


# What is no grant


@pytest.mark.parametrize(
    ("rights", "lifetime_ms", "code"),
    [
        (Rights("a/b", VIEW), None, "invalid-argument"),
        (Rights("ann", VIEW), 0, "invalid-argument"),
        (Rights("ann", VIEW), MAX_LIFETIME_MS + 1, "invalid-argument"),
        (Rights("ann", VIEW, paths=["/a/../b"]), None, "invalid-argument"),
        (Rights("ann", VIEW, paths=["//a"]), None, "invalid-argument"),
        (Rights("ann", VIEW, paths=["/a\n"]), None, "invalid-argument"),
        (Rights("ann", VIEW, paths=["/" + "x" * 2000] * 3), None, "too-large"),
    ],
)
async def test_what_cannot_be_made(bench: Bench, rights: Rights, lifetime_ms: int | None, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await bench.grants.create(rights, lifetime_ms)
    assert caught.value.code == code
    assert bench.names() == []


async def test_a_name_that_is_none_cannot_be_revoked(bench: Bench) -> None:
    with pytest.raises(NotFound) as caught:
        await bench.grants.revoke("\udcff\n")
    caught.value.message.encode()
