"""Runs the tests measured, and compares each module's branch coverage with its floor.

python -m tests.coverage [--record] [arguments of pytest]

--record: write what was measured as the floors from now on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.coverage import floors, measuring

#: Read by each Python of the environment at its start (see site in the standard library).
_HOOK = Path(sysconfig.get_path("purelib")) / "mhnos-runtime-coverage-gate.pth"
_LINE = (
    f"import os, sys; {measuring.SERVER!r} in sys.orig_argv and os.environ.get({measuring.FOLDER!r}) "
    f"and __import__('runpy').run_path({measuring.__file__!r})\n"
)


def main(arguments: list[str]) -> int:
    record = "--record" in arguments
    chosen = [each for each in arguments if each != "--record"]
    with tempfile.TemporaryDirectory() as folder, _servers_are_measured():
        command = (sys.executable, "-m", "pytest", "-p", "tests.coverage.measuring", *chosen)
        code = subprocess.run(command, env={**os.environ, measuring.FOLDER: folder}).returncode
        if code:
            return code
        measured = _percents(Path(folder))
    if record:
        floors.FILE.write_text(
            floors.written({module: floors.floor(each) for module, each in measured.items()})
        )
        print(f"recorded the floors of {len(measured)} modules in {floors.FILE}")
        return 0
    return _compared(measured)


@contextlib.contextmanager
def _servers_are_measured() -> Iterator[None]:
    _HOOK.write_text(_LINE)
    try:
        yield
    finally:
        _HOOK.unlink(missing_ok=True)


def _percents(folder: Path) -> dict[str, float]:
    """Of statements and branches together, by module."""
    whole, report = measuring.measurement(folder), folder / "report.json"
    whole.combine([str(folder)])
    whole.json_report(outfile=str(report))
    files = json.loads(report.read_text())["files"]
    return {_module(path): file["summary"]["percent_covered"] for path, file in files.items()}


def _module(path: str) -> str:
    """ "…/src/mhnos_runtime/server/main.py" is "server/main.py"."""
    return path.rpartition("/mhnos_runtime/")[2]


def _compared(measured: dict[str, float]) -> int:
    known = floors.read(floors.FILE.read_text())
    for module in floors.risen(known, measured):
        print(f"{module} is at {measured[module]:.1f} %, its floor at {known[module]} %")
    wrong = list(floors.complaints(known, measured))
    for line in wrong:
        print(f"coverage: {line}", file=sys.stderr)
    if not wrong:
        print(f"coverage: {len(measured)} modules, none below its floor; to raise floors: {floors.RECORD}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
