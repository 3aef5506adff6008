"""Programs that the runtime brings itself: which there are, where they are installed, and how they get there.

Knows npm and the file system, on the standard library and without an event loop; knows no process of the
runtime, and not how Node.js and npm are found.
"""

from mhnos_runtime.engines.catalogue import CATALOGUE, Spec
from mhnos_runtime.engines.store import Engine, EngineStore, missing

__all__ = ["CATALOGUE", "Engine", "EngineStore", "Spec", "missing"]
