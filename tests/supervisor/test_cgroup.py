"""Files of control groups, against a miniature of the kernel's: what is asked of it. Knows no process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.launch import Limits
from mhnos_runtime.supervisor.cgroup import Group, remove
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.surroundings import Surroundings

MEMORY = 64 << 20
Kernel = Callable[..., Path]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A hierarchy in which each new group has these files, and no others can be made."""

    def hierarchy(**files: str) -> Path:
        made, write = Path.mkdir, Path.write_text

        def mkdir(path: Path) -> None:
            made(path)
            for name, text in files.items():
                write(path / name.replace("__", "."), text)

        def write_text(path: Path, text: str) -> int:
            if not path.exists():
                raise PermissionError(f"no {path.name} here")
            return write(path, text)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "write_text", write_text)
        return tmp_path

    return hierarchy


def made(limits: Limits) -> Group:
    group = Group.make(limits.cgroups, 1)
    group.limit(limits)
    return group


BASIC = {"memory__max": "max", "memory__oom__group": "0", "pids__max": "max"}


def test_all_that_v2_can_limit(kernel: Kernel) -> None:
    root = kernel(**BASIC, cpu__max="max 100000", memory__swap__max="max")
    made(Limits(MEMORY, 30, 50, (("unified+cpu", str(root)),)))
    read = {path.name: path.read_text() for path in (root / "p1").iterdir()}
    assert read == {
        "memory.max": str(MEMORY),
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "pids.max": "30",
        "cpu.max": "50000 100000",
    }


def test_a_share_of_cpu_where_that_is_not_delegated_fails_no_start(kernel: Kernel) -> None:
    root = kernel(**BASIC)
    made(Limits(MEMORY, 30, 50, (("unified", str(root)),)))
    assert (root / "p1" / "pids.max").read_text() == "30"


def test_swap_is_not_touched_without_a_limit_of_memory(kernel: Kernel) -> None:
    root = kernel(**BASIC, memory__swap__max="max")
    made(Limits(0, 30, 0, (("unified", str(root)),)))
    assert (root / "p1" / "memory.swap.max").read_text() == "max"


def test_v1_limits_memory_and_swap_together(kernel: Kernel) -> None:
    root = kernel(memory__limit_in_bytes="-1", memory__memsw__limit_in_bytes="-1")
    made(Limits(MEMORY, 0, 0, (("memory", str(root)),)))
    assert {path.read_text() for path in (root / "p1").iterdir()} == {str(MEMORY)}


def test_groups_that_take_no_limit_are_removed(kernel: Kernel) -> None:
    root, loop = kernel(), Loop()
    limits = Limits(0, 30, 0, (("pids", str(root)),))
    with pytest.raises(LimitReached, match="the limits could not be set"):
        Surroundings.make(loop, limits, Group.make(limits.cgroups, 1), None)
    assert list(root.iterdir()) == []
    loop.close()


@pytest.mark.parametrize("hierarchy", ["unified", "unified+cpu"])
def test_what_v2_tells_of_the_end(kernel: Kernel, hierarchy: str) -> None:
    """memory.peak came with Linux 5.19; before, the limit is what a group that ran out of it had reached."""
    root = kernel(**BASIC, memory__events="low 0\noom 1\noom_kill 3\noom_group_kill 1\n")
    group = made(Limits(MEMORY, 0, 0, ((hierarchy, str(root)),)))
    assert (group.memory_kills(), group.peak_bytes()) == (3, MEMORY)
    (root / "p1" / "memory.peak").touch()
    (root / "p1" / "memory.peak").write_text("1234")
    assert group.peak_bytes() == 1234


def test_groups_within_a_group_are_removed_too(tmp_path: Path) -> None:
    (tmp_path / "p1" / "made" / "inside").mkdir(parents=True)
    Group((("unified", str(tmp_path)),), 1).close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mhnos-1" / "p1" / "inside").mkdir(parents=True)
    remove(str(tmp_path / "mhnos-1"))
    assert list(tmp_path.iterdir()) == []
