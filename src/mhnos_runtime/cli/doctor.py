"""`doctor`: what this machine can enforce, what is missing, and how to get it. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say

if TYPE_CHECKING:
    from mhnos_runtime.config import Settings
    from mhnos_runtime.sandbox import Fact


@click.command(short_help="Tell what this machine can enforce.")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def doctor(json_: bool) -> int:
    """Tell which sandbox levels this machine can give and what each part of them needs, with the one command
    or setting that brings what is missing.

    Also, whether the runtime's own files and its token are safe from processes with the present settings.

    The exit code is 0 when the level that the settings ask for can be given and these are safe, else 1.

    \b
    Examples:
      mhnos-runtime doctor
      mhnos-runtime doctor --json
    """
    from mhnos_runtime.cli.engine_states import engine_states
    from mhnos_runtime.cli.node import find_node
    from mhnos_runtime.config import load
    from mhnos_runtime.engines import EngineStore
    from mhnos_runtime.sandbox import LEVELS
    from mhnos_runtime.sandbox.probe import probe

    settings, _warnings = load({})
    engines = EngineStore(settings.engines_dir)
    engine_facts = tuple(state.fact() for state in engine_states(engines))
    facts = probe(None, find_node(None, engines)[0], engine_facts)
    own = [_own_files(settings), _token(settings)]
    rows = [*facts.rows, *own]
    missing = {level: [fact.name for fact in facts.missing(level)] for level in LEVELS}
    if json_:
        say.as_json(
            {
                "configured": settings.sandbox,
                "levels": {
                    level: {"available": not names, "missing": names} for level, names in missing.items()
                },
                "facts": [
                    {
                        "name": fact.name,
                        "found": fact.found,
                        "detail": fact.detail,
                        "neededFor": fact.needed_for,
                        "how": "" if fact.found else fact.how,
                    }
                    for fact in rows
                ],
            }
        )
    else:
        say.table(
            ("", "FACT", "NEEDED FOR", "DETAIL"),
            [("ok" if f.found else "no", f.name, f.needed_for, f.detail) for f in rows],
        )
        for fact in rows:
            if not fact.found:
                problem = "is not safe" if fact in own else f"is missing, needed for {fact.needed_for}"
                print(f"\n{fact.name} {problem}:\n  {fact.how}")
        print()
        for level, names in missing.items():
            print(f"{level:8} {'can be given' if not names else 'cannot be given: ' + ', '.join(names)}")
    safe = all(fact.found for fact in own)
    return exits.OK if safe and not missing[settings.sandbox] else exits.FAILED


def _own_files(settings: Settings) -> Fact:
    """Whether processes could change them, with the settings of a start from here."""
    from mhnos_runtime.cli import host
    from mhnos_runtime.config import ConfigError, config_files
    from mhnos_runtime.sandbox import Fact

    name, needed_for = "own files", "all levels"
    try:
        exposed = host.trust(settings, host.choose_user(settings, claim=False), config_files()).check()
    except (ConfigError, OSError) as error:  # no workspace yet, or no user for it: `serve` says more
        return Fact(name, True, f"not looked at: {error}", needed_for)
    if exposed is not None:
        return Fact(name, False, str(exposed), needed_for, exposed.item.hint)
    return Fact(name, True, "lie where processes cannot write", needed_for)


def _token(settings: Settings) -> Fact:
    from mhnos_runtime.config import ConfigError
    from mhnos_runtime.sandbox import Fact
    from mhnos_runtime.server.auth.token import read_token, token_path

    path = token_path(settings.state_dir)
    try:
        if path.is_symlink() or path.exists():
            read_token(settings.state_dir)
            return Fact("token", True, str(path), "clients")
    except (ConfigError, OSError) as error:
        return Fact("token", False, str(error), "clients", getattr(error, "hint", "") or str(error))
    return Fact("token", True, "made at the first start", "clients")
