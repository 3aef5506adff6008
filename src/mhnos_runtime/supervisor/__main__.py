"""`python -m mhnos_runtime.supervisor FD`: what `serve` turns into."""

from mhnos_runtime.supervisor.supervisor import main

main()
