"""One process beside those that run: what a start or a restart could not go on with leaves nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.process import Process
from mhnos_runtime.supervisor.state import ProcessState
from tests.supervisor.test_state import RUNNING


class Full(Loop):
    """A loop of a user who may watch no more descriptors (epoll_ctl(2), ENOSPC)."""

    def unwatch(self, fd: int) -> None:
        raise OSError(errno.ENOSPC, "no room", str(fd))


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


@pytest.fixture
def state(program: subprocess.Popen[bytes]) -> ProcessState:
    reader, writer = os.pipe()
    return replace(
        RUNNING, os_pid=program.pid, log_fd=-1, input_fd=writer, sources={reader: 0}, namespaces=None
    )


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", [Loop, Full])
def test_one_that_is_abandoned_ends_and_keeps_no_descriptor(
    kind: type[Loop], program: subprocess.Popen[bytes], state: ProcessState
) -> None:
    """A descriptor that the loop could not let go of was left open."""
    loop = kind()
    loop.watch(next(iter(state.sources)), lambda: None)
    Process.abandon(loop, state)
    assert program.wait(20) == -signal.SIGKILL
    assert not any(map(is_open, state.own_descriptors))
    loop.close()


def test_whose_main_process_has_ended_has_no_pid_that_could_be_killed(
    program: subprocess.Popen[bytes], state: ProcessState
) -> None:
    """By now the number may be another program's."""
    loop = Loop()
    Process.abandon(loop, replace(state, main_status=0))
    assert program.poll() is None
    assert not any(map(is_open, state.own_descriptors))
    loop.close()
