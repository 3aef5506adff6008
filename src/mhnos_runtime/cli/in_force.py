"""The settings that the runtime of a state directory of this machine goes by, as its server tells them. Knows
no verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mhnos_runtime.cli import local
from mhnos_runtime.config import SETTINGS, Settings, describe
from mhnos_runtime.config.reload import Change
from mhnos_runtime.errors import MhnosError

#: A server that cannot serve is what a reload often mends: it is not waited for long.
TIMEOUT_S = 3.0


class InForce(NamedTuple):
    """The settings of a running server. values, sources: by name, as people read them. waiting: what its next
    reload or start would change, by name. problem, hint: why neither would work, "" where they would."""

    values: dict[str, str]
    sources: dict[str, str]
    waiting: dict[str, Change]
    problem: str
    hint: str


def ask(folder: Path) -> InForce | None:
    """None where no server answers, or one that does not tell."""
    from mhnos_runtime.client import http
    from mhnos_runtime.client.discovery import discover

    try:
        local.require(folder)
        target = discover(env={"MHNOS_STATE_DIR": str(folder)})
        answer: Any = http.ask(target, "GET", "/v1/settings", timeout_s=TIMEOUT_S)
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
