"""What main processes leave behind: whose it is, and that it ends. With real processes, below one of their
own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

#: The parent of all: it reaps, and has leftovers as a supervisor does. `run` ends when all owners are told.
PARENT = """
import ctypes, os, signal, sys, time
from mhnos_runtime.supervisor import leftovers
from mhnos_runtime.supervisor.leftovers import Leftovers

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
mains = {}
left = Leftovers(lambda: mains)

def main(owner, script):
    os_pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)
    mains[os_pid] = owner

def run(owners, seconds=20):
    told, end = [], time.monotonic() + seconds
    while set(told) != set(owners):
        assert time.monotonic() < end, told
        signal.sigtimedwait([signal.SIGCHLD], 0.02)
        while True:
            try:
                os_pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not os_pid:
                break
            left.reaped(os_pid, mains.pop(os_pid, None))
        told += left.end()
    assert len(told) == len(owners), told  # each once
    return told
"""


def run(script: str) -> None:
    code = PARENT + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_owner_that_leaves_nothing_is_told_at_once() -> None:
    run("""
        main("a", "exit 3")
        assert run(["a"]) == ["a"]
        assert not left.some
    """)


def test_what_is_left_is_hung_up_and_then_killed() -> None:
    """Before its owner is told: nothing of the process runs any more then."""
    run("""
        leftovers.GRACE_SECONDS = 0.05
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        main("a", "trap '' HUP TERM; sleep 60 & (setsid sh -c 'sleep 60; :') &")
        os.close(writer)
        run(["a"])
        assert os.read(reader, 1) == b""
        assert not left.some
    """)


def test_what_ends_in_order_has_its_time() -> None:
    run("""
        leftovers.GRACE_SECONDS = 3600.0
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        job = "trap 'echo in order >&%d; exit' TERM; trap '' HUP; echo up >&%d; while :; do sleep 0.01; done"
        go, gone = os.pipe()
        os.set_inheritable(go, True)
        main("a", f"({job % (writer, writer)}) & read line <&{go}")
        assert os.read(reader, 3) == b"up\\n"
        os.close(gone)
        run(["a"])
        assert os.read(reader, 100) == b"in order\\n"
    """)


def test_a_child_that_is_known_is_left_alone() -> None:
    run("""
        main("stays", "exec sleep 60")
        main("a", "exit 0")
        assert run(["a"]) == ["a"]
        (os_pid,) = mains
        os.kill(os_pid, 0)
        os.kill(os_pid, signal.SIGKILL)
        assert run(["stays"]) == ["stays"]
    """)


def test_what_cannot_be_ended_is_given_up() -> None:
    """A read that cannot be interrupted, say: its owner's exit does not wait for ever."""
    run("""
        leftovers.GRACE_SECONDS, leftovers.UNKILLABLE_SECONDS = 0.0, 0.2
        leftovers.tree.kill = leftovers.tree.send = lambda *_: None
        main("a", "sleep 60 &")
        assert run(["a"]) == ["a"]
        assert not left.some
        for os_pid in leftovers.proc.children(os.getpid()):
            os.kill(os_pid, signal.SIGKILL)
    """)


@pytest.mark.parametrize("second", ["exit 0", "sleep 60 & exit 0"])
def test_of_two_that_end_together_both_are_told_after_what_either_left(second: str) -> None:
    run(f"""
        leftovers.GRACE_SECONDS = 0.05
        main("a", "sleep 60 & exit 0")
        main("b", "{second}")
        run(["a", "b"])
        assert not leftovers.proc.children(os.getpid())
    """)
