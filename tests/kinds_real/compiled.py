"""What OpenClaw compiles and unpacks at its first start, kept from one workspace for others: a cold start
takes ten seconds of CPU time more. Knows how Node.js names its caches."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from mhnos_runtime.engines import EngineStore
from mhnos_runtime.process.openclaw import CACHE
from tests.engines.shared import shared_folder


def _kept(store: Path) -> Path:
    """Of these versions of the two."""
    found = [EngineStore(store).find(name) for name in ("node", "openclaw")]
    return shared_folder().parent / "-".join(["compiled", *(each.version for each in found if each)])


def keep(workspace: Path, store: Path) -> None:
    """Once OpenClaw has ended there."""
    kept = _kept(store)
    if not kept.exists():
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=kept.parent))
        shutil.copytree(workspace / CACHE, draft / "cache")
        try:
            (draft / "cache").rename(kept)
        except OSError:
            pass  # another test was first
        shutil.rmtree(draft)


def give(workspace: Path, store: Path) -> None:
    """Nothing where nothing is kept: then the start is a cold one."""
    kept, cache, owner = _kept(store), workspace / CACHE, workspace.stat()
    if not kept.exists():
        return
    shutil.copytree(kept, cache)
    for folder in (cache / "node").iterdir():
        # VERSION-ARCHITECTURE-FLAGS-UID: each user has a cache of their own.
        folder.rename(folder.with_name(f"{folder.name.rpartition('-')[0]}-{owner.st_uid}"))
    for path in (cache.parent, cache, *cache.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
