"""Signal handling as a program finds it."""

from __future__ import annotations

from tests.supervisor.harness import Server


def test_signals_are_back_at_their_defaults(server: Server) -> None:
    process = server.spawn("cat", "/proc/self/status")
    server.ended(process)
    status = dict(line.split(":\t", 1) for line in process.output().decode().splitlines())
    # The C library keeps 32 and 33 for itself, and lets nobody set them.
    own = 0b11 << 31
    assert [int(status[name], 16) & ~own for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]
