"""All tokens that there are, and what each of them grants. Knows the stores, no request."""

from __future__ import annotations

from mhnos_runtime.server.auth.grants import EVERYTHING, Grant
from mhnos_runtime.server.auth.token_store import TokenStore


class Tokens:
    def __init__(self, own: TokenStore) -> None:
        """own: the operator's."""
        self._own = own

    @property
    def in_force(self) -> bool:
        """Whether the operator's token is one that matches."""
        return self._own.in_force

    def find(self, candidate: str) -> Grant | None:
        """What it grants; None for one that is no token."""
        return EVERYTHING if self._own.matches(candidate) else None
