"""Two runtimes of root for which nobody names a user do not share one: the second got the first one's id, and
its processes could reach what the first one's had."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.cli.uids import CLAIMS, claim, free
from mhnos_runtime.config import ConfigError
from mhnos_runtime.testing import TestServer
from tests.sandbox.conftest import place
from tests.server.client import connect


@pytest.fixture
def workspaces(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"workspace{number}" for number in range(4)]
    for each in made:
        each.mkdir()
    return made


def test_each_workspace_has_one_of_its_own_and_keeps_it(tmp_path: Path, workspaces: list[Path]) -> None:
    claims, ids = tmp_path / "deep" / "claims", range(100, 103)
    assert [claim(ids, each, claims) for each in workspaces[:3]] == [100, 101, 102]
    assert [claim(ids, each, claims) for each in workspaces[:3]] == [100, 101, 102]
    (tmp_path / "link").symlink_to(workspaces[1])
    assert claim(ids, tmp_path / "link", claims) == 101
    with pytest.raises(ConfigError, match="no user id is left") as caught:
        claim(ids, workspaces[3], claims)
    assert "--user" in caught.value.hint
    # What is gone needs none.
    workspaces[1].rmdir()
    assert claim(ids, workspaces[3], claims) == 101


def test_to_look_changes_nothing(tmp_path: Path, workspaces: list[Path]) -> None:
    claims = tmp_path / "claims"
    assert free(range(100, 103), workspaces[0], claims) == 100
    assert not claims.exists()
    assert claim(range(100, 103), workspaces[0], claims) == 100
    assert free(range(100, 103), workspaces[1], claims) == 101
    assert os.listdir(claims) == ["100"]


def test_of_many_starts_at_once_each_gets_another(tmp_path: Path) -> None:
    found: list[int] = []
    barrier = threading.Barrier(8)

    def start(number: int) -> None:
        (tmp_path / str(number)).mkdir()
        barrier.wait()
        found.append(claim(range(100, 200), tmp_path / str(number), tmp_path / "claims"))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(100, 108))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no user id can be claimed"):
        claim(range(100, 103), tmp_path, tmp_path / "file" / "claims")


@pytest.fixture
def folders() -> Iterator[list[Path]]:
    made = [place(), place()]
    yield made
    for each in made:
        shutil.rmtree(each, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of another user")
async def test_two_runtimes_of_root(folders: list[Path]) -> None:
    flags = ("--sandbox", "none")
    async with (
        TestServer(folders[0], *flags) as first,
        TestServer(folders[1], *flags) as second,
        connect(first) as one,
        connect(second) as other,
    ):
        found = []
        for client in (one, other):
            pid = await client.run("id -u")
            await client.exit(pid)
            found.append(int(client.output(pid)))
        assert len({0, *found}) == 3
        assert [os.readlink(CLAIMS / str(uid)) for uid in found] == [
            str(each.workspace) for each in (first, second)
        ]
