"""The kind node: Node.js, which finds its script itself. Knows how Node completes a name; reads no file."""

from __future__ import annotations

from contextlib import suppress

from mhnos_runtime.errors import NotFound
from mhnos_runtime.process.kind import Hooks, Kind, StartContext

#: What Node tries behind a name, in this order (nodejs.org/api/modules.html, "All together").
_ENDINGS = ("", ".js", ".json", ".node")


class _Node(Hooks):
    def real(self, command: str, context: StartContext) -> str:
        """As Node finds it. A name that leads nowhere stays as it is: Node says then what it looked for.

        A folder is Node's to complete, by its package.json or index.js: those are the program's own files,
        like everything that it imports."""
        for ending in _ENDINGS:
            with suppress(NotFound):
                return context.real(command + ending)
        return context.normalise(command)


NODE = Kind(
    "node",
    ("node", "--max-old-space-size={memory_mb}", "{command}", "{args}"),
    env=(("NODE_ENV", "production"),),
    hooks=_Node(),
)
