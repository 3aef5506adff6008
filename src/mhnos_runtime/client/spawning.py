"""The message that starts a process, from what a caller wants. Knows shapes only."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from mhnos_runtime.client.types import PtySize
from mhnos_runtime.wire import messages as m


def spawn_message(
    kind: str,
    command: str,
    args: Sequence[str],
    options: m.SpawnOptions,
    pty: PtySize | bool | None,
    name: str | None,
    attach: bool,
    linger_ms: int | None,
    network: str | None,
    ports: Mapping[str, int] | None,
    worker: m.WorkerOptions | None,
) -> m.Spawn:
    """With a key of its own, so that it can be sent again; see `Runtime.spawn`."""
    return m.Spawn(
        process_type=kind,
        command=command,
        args=list(args),
        options=options,
        pty=m.PtySize(cols=pty.cols, rows=pty.rows) if isinstance(pty, PtySize) else pty,
        name=name,
        attach=attach,
        linger_ms=linger_ms,
        key=str(uuid.uuid4()),
        acks=True,
        network=network,
        ports=None if ports is None else dict(ports),
        worker=worker,
    )
