"""Kinds of processes, their launch plans, their states and the table of them. No event loop, no client."""
