"""`stop-server`: ends the runtime on this machine, in order, and says what ended with it.

Knows the supervisor by its pid and its signals, and its processes by what the server lists before that.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import click

from mhnos_runtime import title
from mhnos_runtime.cli import exits, local, say
from mhnos_runtime.cli.target import Duration
from mhnos_runtime.errors import MhnosError

#: ms; processes get `kill_grace_seconds`, 5 s unless set, and the server 3 s to say goodbye to its clients.
WAIT_MS = 30_000
#: The supervisor kills at once when a second signal comes, and two at the same time are one to the kernel.
AGAIN_S = 0.1
LIST_S = 3.0
#: After SIGKILL there is nothing to wait for but the kernel.
KILLED_S = 3.0
_MOST_NAMED = 20


@click.command("stop-server", short_help="Stop the runtime on this machine, with its processes.")
@click.option("--state-dir", metavar="DIR", type=click.Path(), help="The runtime's state directory.")
@click.option("-f", "--force", is_flag=True, help="Kill its processes at once; at the end also the runtime.")
@click.option(
    "--wait", "wait_ms", type=Duration(), default=f"{WAIT_MS}ms", help="Wait for so long.  [default: 30s]"
)
def stop_server(state_dir: str | None, force: bool, wait_ms: int) -> int:
    """Stop the runtime on this machine, started by `serve` or `serve -d`, and wait for its end. Processes get
    SIGTERM, and SIGKILL after the setting kill_grace_seconds; then the server ends. Files stay, and so do
    records and output, for the next start.

    \b
    Examples:
      mhnos-runtime stop-server
      mhnos-runtime stop-server --force
    """
    folder = local.state_dir(state_dir)
    found = local.require(folder)
    _refuse_managed(found.os_pid)
    ended = _processes(found, folder)
    with _held(found) as pidfd:
        if not _stop(pidfd, force, monotonic() + wait_ms / 1000):
            raise MhnosError(
                f"the runtime (pid {found.os_pid}) has not ended within {wait_ms / 1000:g} s, and goes on",
                hint="`mhnos-runtime stop-server --force` kills what is left",
            )
    print(f"stopped the runtime at {found.url} (pid {found.os_pid})")
    for line in ended[:_MOST_NAMED]:
        print(f"ended {say.printable(line)}")
    if len(ended) > _MOST_NAMED:
        print(f"ended {len(ended) - _MOST_NAMED} more")
    return exits.OK


def _refuse_managed(os_pid: int) -> None:
    """Who started it would start it again. Raises MhnosError."""
    variables: list[bytes] = []
    with contextlib.suppress(OSError):
        variables = Path(f"/proc/{os_pid}/environ").read_bytes().split(b"\0")
    if any(each.startswith(b"NOTIFY_SOCKET=") for each in variables):
        raise MhnosError(
            "the runtime is a service of systemd, which would start it again",
            hint="systemctl stop mhnos-runtime",
        )
    if os_pid == 1:
        raise MhnosError(
            "the runtime is this container's first process", hint="stop the container: docker compose stop"
        )


def _processes(found: local.Running, folder: Path) -> list[str]:
    """What runs now, a line each; nothing where the server does not answer, which keeps nothing running."""
    from mhnos_runtime.cli.target import open_direct
    from mhnos_runtime.wire import messages as m

    try:
        with open_direct(found.url, str(folder / "token"), LIST_S) as runtime:
            rows = runtime.ask(m.List(), m.ProcessList, LIST_S).processes
    except MhnosError:
        return []
    return [" ".join(filter(None, (str(row.pid), row.type, row.command, *row.args))) for row in rows]


@contextmanager
def _held(found: local.Running) -> Iterator[int]:
    """A descriptor of the supervisor, whose number may be somebody else's later. Raises MhnosError."""
    try:
        pidfd = os.pidfd_open(found.os_pid)
    except ProcessLookupError:
        raise MhnosError("the runtime has just ended") from None
    try:
        if not title.has(found.os_pid, title.SUPERVISOR):
            raise MhnosError("the runtime has just ended")
        yield pidfd
    finally:
        os.close(pidfd)


def _stop(pidfd: int, force: bool, until: float) -> bool:
    """Whether it ended in time."""
    _signal(pidfd, signal.SIGTERM)
    if not force:
        return _ends(pidfd, until - monotonic())
    while monotonic() < until:
        if _ends(pidfd, AGAIN_S):
            return True
        _signal(pidfd, signal.SIGTERM)
    _signal(pidfd, signal.SIGKILL)  # the kernel then kills its processes
    return _ends(pidfd, KILLED_S)


def _signal(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise MhnosError("the runtime belongs to another user", hint="stop it as that user") from None


def _ends(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, round(seconds * 1000))))
