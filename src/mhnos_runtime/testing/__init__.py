"""A real runtime for tests, this project's and other people's."""

from mhnos_runtime.testing.server import TestServer

__all__ = ["TestServer"]
