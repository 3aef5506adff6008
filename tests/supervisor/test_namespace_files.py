"""Namespaces as descriptors to join: in an order in which one without privileges may, and none stays open."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from mhnos_runtime.supervisor import namespace_files

KINDS = ("user", "mnt", "uts", "net")


@pytest.fixture
def inside() -> Iterator[int]:
    """A process with namespaces of its own: a user namespace, and in it all the others."""
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--uts",
        "--net",
        "sh",
        "-c",
        "echo; read x",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        if made.stdout.readline() != b"\n":
            pytest.skip("no user namespaces on this machine")
        yield made.pid
        made.kill()


def names(fds: list[int]) -> list[str]:
    found = [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]
    for fd in fds:
        os.close(fd)
    return found


def links(os_pid: int, *kinds: str) -> list[str]:
    return [os.readlink(f"/proc/{os_pid}/ns/{kind}") for kind in kinds]


def test_the_owner_comes_before_what_it_owns(inside: int) -> None:
    found = names(namespace_files.opened(inside))
    assert found[0] == links(inside, "user")[0]
    assert sorted(found) == sorted(links(inside, *KINDS))


def test_a_network_comes_behind_its_owner(inside: int) -> None:
    assert names(namespace_files.opened_network(inside)) == links(inside, "user", "net")


def test_of_one_that_is_gone_nothing_is_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for opened in (namespace_files.opened, namespace_files.opened_network):
        with pytest.raises(FileNotFoundError):
            opened(2**22 + 1)
    assert sorted(os.listdir("/proc/self/fd")) == before
