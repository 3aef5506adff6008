"""What is measured: the kernel itself, web terminals, OpenSSH, the runtime; behind one small interface."""

from collections.abc import Callable

from .base import Peer, Session, Unavailable
from .kernel import Kernel, PipeToTcp
from .nodepty import NodePty
from .runtime import Runtime
from .ssh import OpenSsh
from .terminado import Terminado

PEERS: dict[str, Callable[[], Peer]] = {
    peer.name: peer for peer in (Kernel, PipeToTcp, NodePty, Terminado, OpenSsh, Runtime)
}

__all__ = ["PEERS", "Kernel", "NodePty", "Peer", "Runtime", "Session", "Unavailable"]
