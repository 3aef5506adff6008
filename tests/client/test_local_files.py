"""Files and directories of this machine, there and back: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhnos_runtime.client import attempts, local_files
from mhnos_runtime.client.contents import Contents
from mhnos_runtime.client.errors import Conflict, ConnectionLost, RequestFailed
from mhnos_runtime.client.tar_stream import Transferred, pack
from tests.client.content_server import ContentServer
from tests.client.cutting import CuttingProxy
from tests.client.test_tar_stream import make_tree, tree

pytestmark = pytest.mark.usefixtures("impatient")

LARGE = os.urandom(1_000_001)


def test_a_file_there_and_back_over_a_bad_connection(server: ContentServer, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    here.write_bytes(LARGE)
    here.chmod(0o640)
    os.utime(here, (1_000_000_000, 1_000_000_000.5))
    with CuttingProxy(server.target, [150_000] * 10) as proxy, Contents(proxy.target) as contents:
        sent = local_files.upload(contents, str(here), "/a")
        taken = local_files.download(contents, "/a", str(back))
    assert sent == taken
    assert back.read_bytes() == LARGE
    assert back.stat().st_mode == here.stat().st_mode
    assert back.stat().st_mtime == 1_000_000_000.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "here"]


def test_a_directory_gets_the_file_under_its_own_name(server: ContentServer, tmp_path: Path) -> None:
    server.files["/a/b"] = b"x"
    with Contents(server.target) as contents:
        local_files.download(contents, "/a/b", str(tmp_path))
    assert (tmp_path / "b").read_bytes() == b"x"


def test_what_fails_leaves_what_was_there(server: ContentServer, tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_bytes(b"old")
    server.files["/a"] = LARGE
    with (
        CuttingProxy(server.target, [100_000] + [1] * (attempts.MAX_ATTEMPTS - 1)) as proxy,
        Contents(proxy.target) as contents,
    ):
        with pytest.raises(ConnectionLost):
            local_files.download(contents, "/a", str(place))
        with pytest.raises(RequestFailed):
            local_files.download(contents, "/none", str(place))
    assert place.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_conditions_of_an_upload_are_the_servers(server: ContentServer, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    server.refuse_uploads = (412, "changed", "It has changed")
    with Contents(server.target) as contents, pytest.raises(Conflict):
        local_files.upload(contents, str(tmp_path / "a"), "/a", absent=True)
    assert server.metadata["ifNoneMatch"] == "*"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_uploaded(server: ContentServer, tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "a")
    with Contents(server.target) as contents, pytest.raises(OSError, match=r"directory|Not a file"):
        local_files.upload(contents, str(tmp_path / "a"), "/a")


def test_a_directory_there_and_back(server: ContentServer, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    here.mkdir()
    make_tree(here)
    os.mkfifo(here / "fifo")
    with Contents(server.target) as contents:
        sent = local_files.upload_directory(contents, str(here), "/d")
        taken = local_files.download_directory(contents, "/d", str(back))
        assert local_files.download_directory(contents, "/d", str(back)).files == taken.files
    assert sent.skipped == [("fifo", "neither a file, a directory nor a symbolic link")]
    (here / "fifo").unlink()
    assert tree(back) == tree(here)
    assert back.stat().st_mode == here.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "here"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    make_tree(here)
    with ContentServer(cut=lambda _line: 2_000_000) as server, Contents(server.target) as contents:
        server.files["/d"] = b"".join(pack(str(here), Transferred()))
        with pytest.raises(ConnectionLost):
            local_files.download_directory(contents, "/d", str(tmp_path / "back"))
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
