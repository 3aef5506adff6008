"""Which part of the workspace a grant is for."""

from __future__ import annotations

from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.server.auth.grants import Grant


def reach(workspace: Workspace, grant: Grant) -> Workspace:
    """The workspace as the holder of a grant may have it."""
    return workspace if grant.paths is None else workspace.limited(grant.paths)
