"""`python -m mhnos_runtime.supervisor`: the program that `serve` becomes, and becomes again after a reload.

FD [FD ...]      start with the configuration in the first descriptor; the others are only kept open
--resume FD      go on with the state of the supervisor that this process was before
--understands N [OWN [FD]]  exit with 0 if a state of version N can be resumed; with 3 if processes could
                            change the code that would run, or the files in OWN (`ownfiles.Trust`). FD: a
                            file with settings; those that are found now take their place there
"""

from __future__ import annotations

import os
import sys

from mhnos_runtime import title
from mhnos_runtime.supervisor import check, handover, plain
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    if arguments[0] == "--understands":
        return 1 if arguments[1] != str(handover.STATE_VERSION) else _fit(*arguments[2:])
    title.take(title.SUPERVISOR)
    data = handover.read(int(arguments[-1]))
    state = handover.HandOver.decode(data) if arguments[0] == "--resume" else None
    config = plain.decode(Config, data) if state is None else state.config
    handover.keep_to_oneself([config.lock_fd, *config.listeners])
    Supervisor(config).run(state)
    return 0


def _fit(own: str = "", settings_fd: str = "") -> int:
    # Imported here: it needs much of the standard library, and a supervisor must be small.
    from mhnos_runtime.ownfiles import Trust

    exposed = Trust.from_json(own).check() if own else None
    if exposed is not None:
        log = Log(not sys.stderr.isatty())
        log.write("error", "not fit to take over", problem=str(exposed), hint=exposed.item.hint)
        return check.EXPOSED
    if settings_fd:
        # Only files that processes cannot change are read.
        os.execv(sys.executable, [sys.executable, *check.SETTINGS_MODULE, settings_fd])
    return 0


sys.exit(main(sys.argv[1:]))
