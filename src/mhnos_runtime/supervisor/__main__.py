"""`python -m mhnos_runtime.supervisor`: what `serve` turns into, and what a reload turns it into again.

FD [FD ...]      start with the configuration in the first descriptor; the others are only kept
--resume FD      go on with the state of another supervisor in this process
--understands N [OWN]  exit with 0 if a state of version N could be resumed; with 3 if processes could change
                       the files that OWN (`ownfiles.Trust`) speaks of, or the code that would run
"""

from __future__ import annotations

import sys

from mhnos_runtime.supervisor import handover, plain
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.log import Log
from mhnos_runtime.supervisor.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    if arguments[0] == "--understands":
        return 1 if arguments[1] != str(handover.STATE_VERSION) else _exposed(arguments[2:])
    data = handover.read(int(arguments[-1]))
    state = handover.HandOver.decode(data) if arguments[0] == "--resume" else None
    config = plain.decode(Config, data) if state is None else state.config
    handover.keep_to_oneself([config.lock_fd, *config.listeners])
    Supervisor(config).run(state)
    return 0


def _exposed(own: list[str]) -> int:
    # Imported here: it needs much of the library, and a supervisor is to be small.
    from mhnos_runtime.ownfiles import Trust

    exposed = Trust.from_json(own[0]).check() if own and own[0] else None
    if exposed is not None:
        log = Log(not sys.stderr.isatty())
        log.write("error", "not fit to take over", problem=str(exposed), hint=exposed.item.hint)
    return handover.EXPOSED if exposed is not None else 0


sys.exit(main(sys.argv[1:]))
