"""Logs, and later metrics and audit. Does not know who observes or is observed."""
