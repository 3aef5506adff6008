"""`python -m mhnos_runtime.server FD`: what the supervisor starts."""

from mhnos_runtime.server.main import main

main()
