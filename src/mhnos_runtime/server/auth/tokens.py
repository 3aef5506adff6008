"""All tokens that there are, and what each of them grants. Knows the stores, no request."""

from __future__ import annotations

from mhnos_runtime.server.auth.grants import EVERYTHING, Grant
from mhnos_runtime.server.auth.stored import StoredGrants
from mhnos_runtime.server.auth.token_store import TokenStore


class Tokens:
    """own: the operator's."""

    def __init__(self, own: TokenStore, stored: StoredGrants) -> None:
        self._own = own
        self._stored = stored

    @property
    def in_force(self) -> bool:
        """Whether the operator's token is one that matches."""
        return self._own.in_force

    def find(self, candidate: str) -> Grant | None:
        """What it grants; None for one that is no token."""
        return EVERYTHING if self._own.matches(candidate) else self._stored.find(candidate)
