"""The workspace as clients name it: confined paths, content, trees, trash, archives, uploads, search and
watches.

Knows nothing of processes, sockets or an event loop.
"""
