"""Processes as clients see them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from mhnos_runtime.process.facts import UNKNOWN, ProcessFacts
from mhnos_runtime.process.ready import Port, Readiness, Watch
from mhnos_runtime.sandbox import Isolation
from mhnos_runtime.server.connections import shown
from mhnos_runtime.server.connections.shown import LISTED_CHARACTERS
from mhnos_runtime.wire import encode
from mhnos_runtime.wire import messages as m
from tests.server.connections.scene import Scene

ISOLATION = Isolation("strict", "none", 5, ("pid",), 3, True, {"tasks": "5"}, False)


def facts(**changes: Any) -> ProcessFacts:
    return msgspec.structs.replace(UNKNOWN, **changes)


async def test_one_that_runs(scene: Scene) -> None:
    program = scene.program(
        pty=(80, 24),
        facts=facts(
            kind="shell",
            command="sh",
            args=("-c", "x"),
            name="n",
            cwd="/a",
            sandbox="strict",
            isolation=ISOLATION,
        ),
    )
    program.write(b"12345")
    process = program.process
    process.viewers[object()] = lambda: None
    info = shown.describe(process)
    assert (info.pid, info.type, info.command, info.args, info.name, info.cwd) == (
        1000,
        "shell",
        "sh",
        ["-c", "x"],
        "n",
        "/a",
    )
    assert (info.status, info.pty, info.viewers) == ("running", m.PtySize(80, 24), 1)
    assert (info.first_offset, info.next_offset, info.os_pid) == (0, 5, process.record.os_pid)
    assert (info.exit, info.ready, info.ports) == (None, UNSET, UNSET)
    assert isinstance(info.isolation, m.Isolation)
    assert (info.isolation.network, info.isolation.limits) == ("none", {"tasks": "5"})


async def test_what_is_unknown_of_one_is_left_out(scene: Scene) -> None:
    """As of one whose facts cannot be read, on pipes."""
    text = encode.encode(m.ProcessList([shown.describe(scene.program().process)], m.ServerStats(1, 0, 1)))
    for absent in (b"isolation", b"ready", b"ports", b"failure"):
        assert absent not in text


async def test_one_that_has_ended_has_no_pid_of_the_system(scene: Scene) -> None:
    """That number may be another process's by now."""
    program = scene.program(
        facts=facts(early_exit="script-error", watch=Watch(), ready=Readiness("starting"))
    )
    program.end(code=3)
    info = shown.describe(program.process)
    assert (info.status, info.os_pid) == ("exited", None)
    assert isinstance(info.exit, m.ExitInfo)
    assert (info.exit.code, info.exit.reason, info.exit.failure) == (3, "exit", "script-error")


async def test_the_message_of_an_exit_has_what_the_record_has(scene: Scene) -> None:
    program = scene.program()
    program.end(code=None, reason="lost")
    record = program.process.exit
    assert record is not None
    message = shown.exit_message(program.process, replace(record, runtime_ms=None, max_rss_bytes=None))
    assert (message.pid, message.code, message.reason, message.runtime, message.failure) == (
        1000,
        None,
        "lost",
        None,
        UNSET,
    )


# Lists


@pytest.mark.parametrize("count", [0, 1, LISTED_CHARACTERS - 2, LISTED_CHARACTERS, 40_000])
async def test_a_command_line_in_a_list_is_bounded(scene: Scene, count: int) -> None:
    """What is left out is shown as such. Here with a long command, then with long and with many arguments."""
    program = scene.program()
    lines = ((("x" * count), ()), ("x", ("y" * count,)), ("x", ("y",) * count))
    for command, args in lines:
        program.process.facts = facts(command=command, args=args)
        info = shown.listed(program.process)
        assert len(info.command) <= LISTED_CHARACTERS + 1
        assert sum(map(len, info.args)) + len(info.args) <= LISTED_CHARACTERS + 2
        whole = (info.command, tuple(info.args)) == (command, args)
        assert whole is not ("…" in (info.command[-1:], *info.args[-1:]))
        assert whole or count >= LISTED_CHARACTERS // 2
        # All of it stays where the process is shown alone.
        assert shown.describe(program.process).args == list(args)


async def test_readiness_and_ports(scene: Scene) -> None:
    program = scene.program()
    assert (shown.ready(program.process), shown.ports(program.process)) == (UNSET, [])
    program.process.facts = facts(
        watch=Watch(),
        ready=Readiness("failed", "why"),
        ports=(Port("http", 80, "127.0.0.1", "http://x/"), Port("hidden", 81, "", "")),
    )
    assert shown.ready(program.process) == m.Readiness("failed", "why")
    assert shown.ports(program.process) == [
        m.Port("http", 80, "127.0.0.1", "http://x/"),
        m.Port("hidden", 81, None, UNSET),
    ]
    program.process.facts = facts(watch=Watch(), ready=Readiness("ready"))
    assert shown.ready(program.process) == m.Readiness("ready", UNSET)


async def test_counts(scene: Scene) -> None:
    for pid in (1000, 1001, 1002):
        scene.program(pid)
    scene.programs[0].end()
    assert shown.stats(scene.table) == m.ServerStats(3, 1, 2)
