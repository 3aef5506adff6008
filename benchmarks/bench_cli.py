"""The command line from start to exit, beside a Python that does nothing, and docker where it runs."""

import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from .context import OURS, Context
from .measure import interleaved, median
from .peers import Runtime
from .peers.base import clean_environment
from .result import Figure

_PYTHON, _DOCKER = "python -c pass", "docker ps"
_ONE_QUESTION_MS, _RUN_MS = 150.0, 250.0
# What holds on a busy machine as well.
_ONE_QUESTION_RATIO, _RUN_RATIO = 8.0, 12.0


class Row(NamedTuple):
    name: str
    command: Sequence[str]
    environment: dict[str, str]
    codes: tuple[int, ...] = (0,)


def _rows(peer: Runtime) -> list[Row]:
    program = Runtime._command()
    at = {
        **clean_environment(),
        "MHNOS_STATE_DIR": str(peer.state),
        "MHNOS_URL": f"http://127.0.0.1:{peer.port}",
        "MHNOS_TOKEN": peer.token,
    }
    socket = peer.connect()
    pid = str(peer.spawn(socket, ["/bin/echo", "hello"], lingerMs=None))
    socket.close()
    completing = {
        "COMP_WORDS": f"{OURS} kill ",
        "COMP_CWORD": "2",
        "_MHNOS_RUNTIME_COMPLETE": "bash_complete",
    }
    return [
        Row(_PYTHON, [sys.executable, "-c", "pass"], clean_environment()),
        Row(f"{OURS} ps", [program, "ps"], at),
        Row(f"{OURS} kill, of a process that is gone", [program, "kill", pid], at, (1,)),
        Row(f"{OURS} logs, 7 bytes", [program, "logs", pid], at),
        Row(f"{OURS}, completion of a pid", [program], {**at, **completing}),
        Row(f"{OURS} run shell true", [program, "run", "shell", "true"], at),
    ]


def _took_ms(row: Row) -> float | None:
    """None: it did not do what it is for, such as docker without its daemon."""
    start = time.perf_counter_ns()
    done = subprocess.run(
        row.command, env=row.environment, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    took = (time.perf_counter_ns() - start) / 1e6
    return took if done.returncode in row.codes else None


def run(context: Context) -> list[Figure]:
    samples: dict[str, list[float]] = defaultdict(list)
    with context.peers(OURS) as peers:
        rows = [row for peer in peers if isinstance(peer, Runtime) for row in _rows(peer)]
        if docker := shutil.which("docker"):
            rows.append(Row(_DOCKER, [docker, "ps"], dict(os.environ)))

        def once(row: Row) -> None:
            if (took := _took_ms(row)) is not None:
                samples[row.name].append(took)

        interleaved(context.pick(40, 8), rows, once)
    figure = Figure("from start to exit", "ms", {name: median(values) for name, values in samples.items()})
    for name in figure.values:
        if name.startswith(OURS):
            runs = name.endswith("run shell true")
            figure.demand(name, figure.values[name], "<=", _RUN_MS if runs else _ONE_QUESTION_MS, "ms")
            ratio = figure.ratio(name, _PYTHON)
            limit = _RUN_RATIO if runs else _ONE_QUESTION_RATIO
            figure.demand(f"{name}, of an empty Python", ratio, "<=", limit, "times")
    return [figure]
