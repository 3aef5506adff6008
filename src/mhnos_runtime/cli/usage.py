"""What processes use, as rows of a table. Knows two samples and the time between them; asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mhnos_runtime.cli import say

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.wire.messages import ProcessInfo, ProcessUsage

HEAD = ("PID", "NAME", "KIND", "CPU", "CPU TIME", "MEMORY", "TASKS", "COMMAND")
COMMAND = HEAD.index("COMMAND")  # the column that shrinks where the screen is narrow


@dataclass(frozen=True, slots=True)
class Used:
    """cpu_percent: 100 is one CPU; None where it is not known. Memory in bytes."""

    process: ProcessInfo
    usage: ProcessUsage
    cpu_percent: float | None

    def cells(self) -> tuple[str, ...]:
        """One row; "-" where nothing is known."""
        row, used = self.process, self.usage
        return (
            str(row.pid),
            row.name if isinstance(row.name, str) else "-",
            row.type,
            "-" if self.cpu_percent is None else f"{self.cpu_percent:.1f} %",
            "-" if used.cpu_ms is None else f"{used.cpu_ms / 1000:.2f} s",
            say.size(used.rss_bytes),
            "-" if used.tasks is None else str(used.tasks),
            " ".join([row.command, *row.args]).strip() or "-",
        )


class Sampler:
    """Measures processes again and again. handles: which; none: all that run."""

    def __init__(self, handles: Sequence[int | str]) -> None:
        self._handles = handles
        self._before: dict[int, int] = {}
        self._then_s = 0.0

    def usages(self, runtime: Direct) -> list[ProcessUsage]:
        """Of now. Raises RequestFailed for a process that is not there."""
        from mhnos_runtime.wire import messages as m

        found = []
        for handle in self._handles or (None,):
            found += runtime.ask(m.Stats(pid=handle), m.ProcessStats).processes
        return found

    def sample(self, runtime: Direct, now_s: float) -> list[Used]:
        """With the CPU share since the last sample, of which the first one knows nothing."""
        from mhnos_runtime.wire import messages as m

        usages = self.usages(runtime)
        about = {row.pid: row for row in runtime.ask(m.List(), m.ProcessList).processes}
        span_s, self._then_s = now_s - self._then_s, now_s
        before, self._before = (
            self._before,
            {each.pid: each.cpu_ms for each in usages if each.cpu_ms is not None},
        )
        return [
            Used(about[each.pid], each, _share(each.cpu_ms, before.get(each.pid), span_s))
            for each in usages
            if each.pid in about
        ]


def _share(cpu_ms: int | None, before_ms: int | None, span_s: float) -> float | None:
    if cpu_ms is None or before_ms is None or span_s <= 0:
        return None
    return max(0.0, (cpu_ms - before_ms) / span_s / 10)
