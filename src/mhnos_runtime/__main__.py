"""`python -m mhnos_runtime`: the same as the command `mhnos-runtime`."""

from mhnos_runtime.cli.main import main

main()
