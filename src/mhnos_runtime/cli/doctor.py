"""`doctor`: what this machine can enforce, what is missing, and how to get it. Changes nothing."""

from __future__ import annotations

import click

from mhnos_runtime.cli import exits, say


@click.command(short_help="Tell what this machine can enforce.")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def doctor(json_: bool) -> int:
    """Tell which sandbox levels this machine can give and what each part of them needs, with the one command
    or setting that brings what is missing.

    The exit code is 0 when the level that the settings ask for can be given, else 1.

    \b
    Examples:
      mhnos-runtime doctor
      mhnos-runtime doctor --json
    """
    from mhnos_runtime.cli.node import engine_facts, find_node
    from mhnos_runtime.config import load
    from mhnos_runtime.engines import EngineStore
    from mhnos_runtime.sandbox import LEVELS
    from mhnos_runtime.sandbox.probe import probe

    settings, _warnings = load({})
    engines = EngineStore(settings.engines_dir)
    facts = probe(None, find_node(None, engines)[0], engine_facts(engines))
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
                    for fact in facts.rows
                ],
            }
        )
    else:
        say.table(
            ("", "FACT", "NEEDED FOR", "DETAIL"),
            [("ok" if f.found else "no", f.name, f.needed_for, f.detail) for f in facts.rows],
        )
        for fact in facts.rows:
            if not fact.found:
                print(f"\n{fact.name} is missing, needed for {fact.needed_for}:\n  {fact.how}")
        print()
        for level, names in missing.items():
            print(f"{level:8} {'can be given' if not names else 'cannot be given: ' + ', '.join(names)}")
    return exits.FAILED if missing[settings.sandbox] else exits.OK
