"""The user and the sandbox of npm where root installs engines. Asks the machine; starts no npm."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Iterator

from mhnos_runtime.engines.confined import Confined, running
from mhnos_runtime.errors import InstallFailed

#: Beside those for processes, below what systemd hands out for a while (61184..65519).
_UIDS = range(60_500, 60_700)


@contextlib.contextmanager
def confined(sandbox: bool = True) -> Iterator[Confined | None]:
    """None for an ordinary user, who installs as themselves; else a user that nobody else has before the end
    of the block. sandbox: whether bubblewrap has to be there.

    Raises InstallFailed (engines-sandbox) where it cannot be used.
    """
    if os.geteuid() != 0:
        yield None
        return
    with contextlib.ExitStack() as stack:
        uid = next((uid for uid in _UIDS if _claim(uid, stack)), None)
        if uid is None:
            raise InstallFailed(
                f"no uid from {_UIDS.start} to {_UIDS.stop - 1} is free for npm",
                code="engines-sandbox",
                hint="end what runs as those, and run the same again",
            )
        yield _sandboxed(uid) if sandbox else Confined((uid, uid))


def _sandboxed(uid: int) -> Confined:
    from mhnos_runtime.sandbox.probe import probe

    facts = probe((uid, uid))
    missing = [fact for fact in facts.missing("strict") if fact.name in ("bubblewrap", "user namespaces")]
    if missing:
        raise InstallFailed(
            "root's npm runs in a sandbox, which this machine cannot give: "
            + "; ".join(f"{fact.name}: {fact.detail}" for fact in missing),
            code="engines-sandbox",
            hint="; ".join(fact.how for fact in missing)
            + "; or --no-sandbox: npm then runs as a user of its own that sees what every user sees",
        )
    return Confined(
        (uid, uid),
        facts.bubblewrap,
        facts.system,
        facts.configuration,
        ("--disable-userns",) if facts.disable_userns else (),
        (facts.filters or {}).get("network", ""),
    )


def _claim(uid: int, stack: contextlib.ExitStack) -> bool:
    """Whether it is this command's for as long as it runs: a name can be bound once, and goes with whoever
    has bound it (unix(7), abstract sockets)."""
    with contextlib.suppress(KeyError):
        pwd.getpwuid(uid)
        return False
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(f"\0mhnos-runtime-engines-{uid}")
    except OSError:
        sock.close()
        return False
    stack.enter_context(sock)
    return not running(uid)
