"""The kinds that there are: built-in ones, and those that an operator declares, in the same form."""

from __future__ import annotations

from collections.abc import Iterable

from mhnos_runtime.config import KindSetting
from mhnos_runtime.process.kind import Kind
from mhnos_runtime.process.node import NODE
from mhnos_runtime.process.openclaw import OPENCLAW
from mhnos_runtime.process.python import PYTHON
from mhnos_runtime.process.shell import SHELL
from mhnos_runtime.process.workerd import WORKERD

BUILT_IN = (NODE, PYTHON, SHELL, WORKERD, OPENCLAW)


def all_kinds(declared: Iterable[KindSetting]) -> dict[str, Kind]:
    """Built-in and declared kinds by name."""
    kinds = {kind.name: kind for kind in BUILT_IN}
    for setting in declared:
        kinds[setting.name] = Kind(
            setting.name,
            setting.argv,
            setting.pty,
            setting.command,
            env=setting.env,
            limits=setting.limits,
            ready=setting.ready,
            grace_ms=round(setting.grace_seconds * 1000),
            needed_memory_bytes=setting.needed_memory_bytes,
            single=setting.single,
        )
    return kinds


#: Folders of the workspace that kinds make anew when they are gone: larger than a pull may be, and of no use
#: anywhere else.
CACHES = frozenset(path for kind in BUILT_IN for path in kind.caches)

#: For the sandbox of all processes, whatever their kind: any of them may start an engine.
OWN_FOLDERS = tuple(each for kind in BUILT_IN for each in kind.own_folders)
