"""Logs, and later metrics and audit. Knows nothing of who observes or is observed."""
