"""The command line of the benchmarks: which to run, how thoroughly, and where the results go."""

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import report
from .context import Context
from .result import Figure

HERE = Path(__file__).parent
NAMES = (
    *("output", "echo", "flood", "crowd", "spawn", "sandbox", "memory", "viewers", "attach", "stalled"),
    *("restart", "kinds", "cli", "files", "archives", "listing", "busy", "watch"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller runs; the figures are rough")
    parser.add_argument(
        "--only", action="append", choices=NAMES, help="only this one; may be given more than once"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results as JSON too")
    parser.add_argument("--write-docs", action="store_true", help="put the results into docs/performance.md")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    subprocess.run([str(HERE / "setup.sh")], check=True)
    context, results = Context(options.quick), dict[str, Sequence[Figure]]()
    titles: dict[str, str] = {}
    for name in options.only or NAMES:
        module = importlib.import_module(f".bench_{name}", __package__)
        titles[name] = module.__doc__ or ""
        print(f"\n== {name}: {titles[name]}", flush=True)
        results[name] = module.run(context)
        for figure in results[name]:
            print(report.terminal(figure), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results, options.quick), indent=2) + "\n")
    if options.write_docs:
        report.write_docs(HERE.parent / "docs" / "performance.md", report.markdown(results, titles))
    verdicts = [
        check.verdict for figures in results.values() for figure in figures for check in figure.checks
    ]
    print("\n" + ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("pass", "FAIL", "not measured")))
    return 1 if "FAIL" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
