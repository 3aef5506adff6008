"""Programs that the runtime installs: which there are, where they are, and how they are installed.

Knows npm and the file system, with the standard library and no event loop. Does not know the runtime's
processes, nor how Node.js and npm are found.
"""

from mhnos_runtime.engines.catalogue import CATALOGUE, Spec
from mhnos_runtime.engines.store import Engine, EngineStore, missing

__all__ = ["CATALOGUE", "Engine", "EngineStore", "Spec", "missing"]
