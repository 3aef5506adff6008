"""Holders of namespaces: started, kept as a spare, and gone. In bubblewrap's place is a program that says
what a test wants; what the real one gives is tested in tests/sandbox."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.launch import Holder
from mhnos_runtime.supervisor import holder as holder_module
from mhnos_runtime.supervisor.holder import Holders, Namespaces
from mhnos_runtime.supervisor.loop import Loop
from tests.supervisor.running import until

BEGIN = """
import os, sys
NEWLINE = b'\\n'
options = os.read(int(sys.argv[sys.argv.index('--args') + 1]), 65536).decode().split('\\0')
status = int(options[options.index('--json-status-fd') + 1])
"""
#: Is inside at once, and stays until its input ends, as the real one's command does.
READY = """
os.write(status, b'{"child-pid": %d}' % os.getpid() + NEWLINE)
os.write(1, NEWLINE)
while os.read(0, 100): pass
"""
STARTS: dict[str, str] = {
    "refuses": "os.write(2, b'no user namespaces here')",
    "says nothing": "",
    "says nonsense": "os.write(status, b'[1' + NEWLINE); os.write(1, NEWLINE)",
    "names nobody": "os.write(status, b'{\"child-pid\": -1}' + NEWLINE); os.write(1, NEWLINE)",
}


class Scene:
    """Holders that are reaped as a supervisor does."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.holders = Holders(self.loop)
        self._folder = folder

    def spec(self, name: str, code: str = READY) -> Holder:
        """One whose program does this."""
        program = self._folder / name
        program.write_text(f"#!{sys.executable} -IS\n{BEGIN}\n{code}\n")
        program.chmod(0o700)
        return Holder(str(program), ())

    def take(self, spec: Holder) -> Namespaces | MhnosError:
        found: list[Namespaces | MhnosError] = []
        self.holders.take(spec, None, lambda taken, error: found.append(taken or error or MhnosError("none")))
        until(self.loop, lambda: bool(found))
        assert self.holders.under_way == 0
        return found[0]

    def taken(self, spec: Holder) -> Namespaces:
        found = self.take(spec)
        assert isinstance(found, Namespaces), found
        return found

    def spare(self, but: int) -> int:
        """The one that is made once the last start has run for a moment."""
        until(self.loop, lambda: len(self.holders.os_pids) > 1)
        (os_pid,) = self.holders.os_pids - {but}
        return os_pid

    def reap(self, os_pid: int) -> None:
        os.waitpid(os_pid, 0)
        self.holders.reaped(os_pid)

    def close(self) -> None:
        self.holders.close()
        for namespaces in list(self.holders._all.values()):
            namespaces.kill()
            self.reap(namespaces.os_pid)
        self.loop.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    before = sorted(os.listdir("/proc/self/fd"))
    made = Scene(tmp_path)
    yield made
    made.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_is_taken_is_ready_and_ends_with_all_inside(scene: Scene) -> None:
    gone: list[bool] = []
    found = scene.taken(scene.spec("a"))
    assert (found.ready, found.gone, found.init) == (True, False, found.os_pid)
    found.on_gone = lambda: gone.append(found.gone)
    found.kill()
    scene.reap(found.os_pid)
    assert gone == [True]
    found.kill()  # nothing any more


@pytest.mark.parametrize("start", STARTS)
def test_why_there_are_none_is_said(scene: Scene, start: str) -> None:
    error = scene.take(scene.spec("a", STARTS[start]))
    assert isinstance(error, MhnosError)
    assert ("no user namespaces here" if start == "refuses" else "bubblewrap was killed") in error.message
    assert "doctor" in error.hint


def test_a_program_that_is_not_there_is_named(scene: Scene) -> None:
    error = scene.take(Holder("/no/such/program", ()))
    assert isinstance(error, MhnosError)
    assert "/no/such/program" in error.message


def test_the_next_start_has_the_spare(scene: Scene) -> None:
    spec = scene.spec("a")
    first = scene.taken(spec)
    spare = scene.spare(first.os_pid)
    assert scene.taken(spec).os_pid == spare


def test_a_spare_of_another_kind_ends(scene: Scene) -> None:
    first = scene.taken(scene.spec("a"))
    spare = scene.spare(first.os_pid)
    assert scene.taken(scene.spec("b")).os_pid != spare
    scene.reap(spare)


def test_a_spare_that_died_meanwhile_is_given_to_nobody(scene: Scene) -> None:
    spec = scene.spec("a")
    first = scene.taken(spec)
    spare = scene.spare(first.os_pid)
    scene.holders._all[spare].kill()
    scene.reap(spare)
    assert scene.taken(spec).ready


def test_one_that_ends_before_it_is_ready_is_told_to_who_waits(scene: Scene) -> None:
    found: list[MhnosError | None] = []
    scene.holders.take(scene.spec("a", "os.read(0, 2)"), None, lambda _taken, error: found.append(error))
    (os_pid,) = scene.holders.os_pids
    scene.holders._all[os_pid].kill()
    scene.reap(os_pid)
    (error,) = found
    assert error is not None
    assert "killed" in error.message


@pytest.mark.parametrize("failing", ["pipe2", "fork", "watch"])
def test_where_something_runs_out_nothing_is_left(
    scene: Scene, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that could not be watched ran on, in no list, with its pipes."""

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    forked: list[int] = []
    fork: Callable[[], int] = os.fork

    def noted() -> int:
        forked.append(fork())
        return forked[-1]

    before = sorted(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", noted)
        patch.setattr(scene.loop if failing == "watch" else os, failing, fails)
        error = scene.take(scene.spec("a"))
    assert isinstance(error, MhnosError)
    assert "no room for another sandbox" in error.message
    assert sorted(os.listdir("/proc/self/fd")) == before
    for os_pid in forked:
        with open(os.pidfd_open(os_pid), "rb", 0) as ended:
            assert select.select([ended], [], [], 20)[0]
        os.waitpid(os_pid, 0)


@pytest.mark.parametrize(
    ("status", "os_pid"),
    [
        (b'{"child-pid": 7}\n', 7),
        (b'{"child-pid": 7}\n{"exit-code": 0}\n', 7),
        *((text, 0) for text in (b"", b"7", b"{}", b'{"child-pid": "7"}', b'{"child-pid": 0}', b"[" * 3000)),
    ],
)
def test_of_what_bubblewrap_says_only_a_pid_counts(status: bytes, os_pid: int) -> None:
    assert holder_module._child_pid(status) == os_pid
