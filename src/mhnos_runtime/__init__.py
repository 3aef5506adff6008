"""The MHNOS runtime: real processes behind a WebSocket."""

__version__ = "0.1.0"
