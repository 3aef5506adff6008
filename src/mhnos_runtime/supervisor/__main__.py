"""`python -m mhnos_runtime.supervisor`: what `serve` turns into, and what a reload turns it into again.

FD [FD ...]      start with the configuration in the first descriptor; the others are only kept
--resume FD      go on with the state of another supervisor in this process
--understands N  exit with 0 if a state of version N could be resumed
"""

from __future__ import annotations

import sys

from mhnos_runtime.supervisor import handover
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    if arguments[0] == "--understands":
        return 0 if arguments[1] == str(handover.STATE_VERSION) else 1
    state = handover.read(int(arguments[-1]))
    resumes = arguments[0] == "--resume"
    config = Config.from_dict(state["config"] if resumes else state)
    handover.keep_to_oneself([config.lock_fd, *config.listeners])
    Supervisor(config).run(state if resumes else None)
    return 0


sys.exit(main(sys.argv[1:]))
