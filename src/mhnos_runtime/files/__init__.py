"""The workspace as clients name it: confined paths and transfer.

Knows nothing of processes, sockets or an event loop.
"""
