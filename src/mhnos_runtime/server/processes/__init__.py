"""Processes for clients: starting, lifetimes, terminals, readiness, and the link to the supervisor."""
