"""What is measured: the kernel itself, web terminals, OpenSSH, nginx, the runtime; behind one interface."""

from collections.abc import Callable

from .base import Peer, Session, Unavailable
from .kernel import Kernel, PipeToTcp
from .nginx import Nginx
from .nodepty import NodePty
from .runtime import Runtime
from .ssh import OpenSsh
from .terminado import Terminado

PEERS: dict[str, Callable[[], Peer]] = {
    peer.name: peer for peer in (Kernel, PipeToTcp, NodePty, Terminado, OpenSsh, Nginx, Runtime)
}

__all__ = ["PEERS", "Kernel", "Nginx", "NodePty", "Peer", "Runtime", "Session", "Unavailable"]
