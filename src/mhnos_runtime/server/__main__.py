"""`python -m mhnos_runtime.server FD`: what the supervisor starts."""

import gc

# What the imports make stays. To look through it again and again takes a seventh of the start, and after that
# a part of each full collection, for which clients wait.
gc.disable()
from mhnos_runtime import title  # noqa: E402
from mhnos_runtime.server.main import main  # noqa: E402

title.take(title.SERVER)
gc.freeze()
gc.enable()
main()
