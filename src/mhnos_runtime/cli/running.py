"""The runtime that uses a state directory of this machine: its supervisor, its address, and the settings that
it goes by. Knows no verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from mhnos_runtime.cli.target import run_async
from mhnos_runtime.config import SETTINGS, Settings, describe
from mhnos_runtime.config.reload import Change
from mhnos_runtime.errors import MhnosError


class Found(NamedTuple):
    """pid: of the supervisor. state_version: of what it would hand over, as its server.json says."""

    pid: int
    url: str
    state_version: object


def find(folder: Path) -> Found:
    """Raises MhnosError where no runtime uses this folder."""
    try:
        facts = json.loads((folder / "server.json").read_text())
        pid, url = int(facts["pid"]), str(facts["url"])
        # A file that a crash left over may name a pid that is somebody else's by now.
        if b"mhnos_runtime.supervisor" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            raise ProcessLookupError
    except (OSError, ValueError, KeyError, TypeError):
        raise MhnosError(
            f"no runtime uses {folder}",
            hint="--state-dir names another one; `mhnos-runtime serve` starts one",
        ) from None
    return Found(pid, url, facts.get("stateVersion"))


class InForce(NamedTuple):
    """The settings of a running server. values, sources: by name, as people read them. waiting: what its next
    reload or start would change, by name. problem, hint: why neither would work, "" where they would."""

    values: dict[str, str]
    sources: dict[str, str]
    waiting: dict[str, Change]
    problem: str
    hint: str


def in_force(folder: Path) -> InForce | None:
    """None where no server answers, or one that does not tell."""
    from mhnos_runtime.client.discovery import discover
    from mhnos_runtime.client.http import ask

    try:
        find(folder)
        target = discover(env={"MHNOS_STATE_DIR": str(folder)})
        answer: Any = run_async(ask(target, "GET", "/v1/settings"))
        rows, changes = answer["settings"], [Change(**each) for each in answer["changes"]]
        return InForce(
            {row["name"]: row["value"] for row in rows},
            {row["name"]: row["source"] for row in rows},
            {each.name: each for each in changes},
            answer.get("problem", ""),
            answer.get("hint", ""),
        )
    except (MhnosError, KeyError, TypeError):
        return None


def by_variables_here(settings: Settings, running: InForce) -> dict[str, Change]:
    """What variables of this command say, and the runtime does not go by, by name."""
    rows = {row.name: row for row in describe(settings)}
    return {
        each.name: Change(
            each.name,
            running.values[each.name],
            rows[each.name].value,
            settings.source(each.name),
            each.reloads,
        )
        for each in SETTINGS
        if settings.source(each.name).startswith("variable ")
        and running.values.get(each.name, rows[each.name].value) != rows[each.name].value
    }
