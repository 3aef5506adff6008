"""`python -m mhnos_runtime.config FD`: reads the settings again for a supervisor that is about to be
replaced, which has no parser of its own. Replaces what is in the file, see `answer`. Knows no supervisor."""

from __future__ import annotations

import json
import sys
from typing import Any

from mhnos_runtime.config import ConfigError, Settings, load_again
from mhnos_runtime.config.reload import applied, changes, take


def answer(settings: str) -> dict[str, Any]:
    """settings: those that it runs with, `Settings.to_json`. Of the answer: those to go on with; changes, as
    `Change`; or why there are none: problem, and hint."""
    try:
        running = Settings.from_json(settings)
        found = load_again(running, take(running.state_dir))
    except ConfigError as error:
        return {"settings": settings, "changes": [], "problem": error.message, "hint": error.hint}
    after = applied(running, found)
    told = [each._asdict() for each in changes(running, found)]
    return {"settings": after.to_json(), "changes": told, "problem": "", "hint": ""}


def main(fd: int) -> None:
    with open(fd, "r+", encoding="utf-8") as file:
        found = answer(json.load(file)["settings"])
        file.seek(0)
        file.truncate()
        json.dump(found, file)


if __name__ == "__main__":
    main(int(sys.argv[1]))
