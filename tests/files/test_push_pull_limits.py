"""Large pushes in little memory, and disks that are full. Measured and bounded in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mhnos_runtime
from mhnos_runtime.errors import LimitReached
from mhnos_runtime.files import push_pull
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.push_pull import PushEntry, pull, push

MIB = 1 << 20
SOURCE = Path(mhnos_runtime.__file__).parents[1]


def run_python(program: str, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", program, *args], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HUNDRED_MIB = """
import hashlib, resource, sys
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.push_pull import PushEntry, pull, push

def kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def chunks(digest):
    for number in range(1600):
        chunk = number.to_bytes(4, "big") * 16384
        digest.update(chunk)
        yield chunk

pushed, pulled = hashlib.sha256(), hashlib.sha256()
with Workspace(sys.argv[1]) as workspace:
    push(workspace, [PushEntry("/warm", "file", [bytes(65536)])])
    before = kib()
    assert push(workspace, [PushEntry("/big", "file", chunks(pushed))]).errors == []
    for item in pull(workspace, max_bytes=1 << 30):
        if item.path == "/big":
            assert item.size == 100 << 20
            for chunk in item.chunks():
                pulled.update(chunk)
assert pushed.digest() == pulled.digest()
print(kib() - before)
"""


def test_a_hundred_mib_there_and_back_in_a_few(root: Path) -> None:
    assert int(run_python(HUNDRED_MIB, str(root))) < 8 * 1024


FILE_SIZE_LIMIT = """
import resource, sys
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.push_pull import PushEntry, push

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with Workspace(sys.argv[1]) as workspace:
    result = push(workspace, [
        PushEntry("/a", "file", [b"x" * 900]),
        PushEntry("/old", "file", [b"y" * 900, b"y" * 900]),
        PushEntry("/b", "file", [b"z"]),
    ])
print(result.errors)
"""


def test_a_file_larger_than_the_system_allows(root: Path) -> None:
    (root / "old").write_bytes(b"kept")
    assert run_python(FILE_SIZE_LIMIT, str(root)) == "[('/old', 'Larger than a file may be: /old')]"
    assert (root / "old").read_bytes() == b"kept"
    assert sorted(os.listdir(root)) == ["a", "b", "old"]


NO_DESCRIPTORS = """
import os, resource, sys
from mhnos_runtime.errors import LimitReached
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.push_pull import PushEntry, pull, push

entry = PushEntry("/a/b/f", "file", [b"x"])
seen = set()
with Workspace(sys.argv[1]) as workspace:
    for free in range(12):
        first = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + free, 4096))
        pushed = push(workspace, [entry])
        try:
            found = [b"".join(item.chunks()) for item in pull(workspace, max_bytes=100)]
            assert found == [b"", b"", b"x"], found
        except LimitReached as error:
            found = error.code
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        assert len(os.listdir("/proc/self/fd")) - 1 == first
        seen.add((pushed.synced, tuple(pushed.errors), str(found)))
for line in sorted(seen):
    print(*line)
"""


def test_out_of_descriptors_is_told_and_leaks_none(root: Path) -> None:
    """A pull that left out what it could not open looked to a client as if all of it had been deleted."""
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").write_bytes(b"x")
    told = "('/a/b/f', 'The runtime has too many open files: /a/b/f')"
    lines = run_python(NO_DESCRIPTORS, str(root)).splitlines()
    assert f"0 ({told},) unavailable" in lines
    assert "1 () [b'', b'', b'x']" in lines
    assert all(line.startswith((f"0 ({told},)", "1 ()")) for line in lines)


@pytest.fixture
def small_disk(root: Path) -> object:
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root]).returncode
    ):
        pytest.skip("needs the right to mount")
    yield root
    subprocess.run(["umount", root], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    (small_disk / "old").write_bytes(b"kept")
    with Workspace(small_disk) as workspace:
        too_much = PushEntry("/old", "file", (bytes(65536) for _ in range(64)))
        result = push(workspace, [too_much, PushEntry("/small", "file", [b"fits"])])
        assert result.errors == [("/old", "No space left on the workspace's disk: /old")]
        contents = {item.path: b"".join(item.chunks()) for item in pull(workspace, max_bytes=MIB)}
    assert contents == {"/old": b"kept", "/small": b"fits"}
    assert sorted(os.listdir(small_disk)) == ["old", "small"]


def test_a_disk_without_room_for_another_file(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=3", small_disk], check=True)
    with Workspace(small_disk) as workspace:
        result = push(workspace, [PushEntry(f"/{number}", "file", [b""]) for number in range(3)])
    assert result.synced == 2
    assert result.errors == [("/2", "No space left on the workspace's disk: /2")]


def test_a_read_only_disk(small_disk: Path) -> None:
    (small_disk / "old").write_bytes(b"kept")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with Workspace(small_disk) as workspace:
        paths = ["/old", "/new"]
        result = push(workspace, [PushEntry(path, "file", [b"x"]) for path in paths])
    assert result.errors == [(path, f"Read-only file system: {path}") for path in paths]
    assert (small_disk / "old").read_bytes() == b"kept"


def test_a_file_that_is_too_large_fails_alone(root: Path) -> None:
    (root / "a").write_bytes(b"123456")
    (root / "b").write_bytes(b"12345")
    with Workspace(root) as workspace:
        assert [item.path for item in pull(workspace, max_bytes=5)] == ["/b"]


def test_long_paths_are_bounded_as_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All paths of a directory are held at a time: 100,000 of 4 KiB each would be 400 MB."""
    monkeypatch.setattr(push_pull, "MAX_PULL_PATH_BYTES", 1000)
    for number in range(20):
        (root / f"{number:0100}").touch()
    with Workspace(root) as workspace, pytest.raises(LimitReached) as caught:
        list(pull(workspace, max_bytes=1 << 30))
    assert caught.value.code == "too-large"
