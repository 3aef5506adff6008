"""A clock that stands still until it is told that time passes, for what is handed its timers."""

from __future__ import annotations

from collections.abc import Callable

from mhnos_runtime.output import Holds, LogReader


class Alarm:
    """What is to be called at a time, unless it is cancelled before."""

    def __init__(self, time: float, action: Callable[[], None]) -> None:
        self.time = time
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """now: seconds since it was made."""

    def __init__(self) -> None:
        self.now = 0.0
        self._alarms: list[Alarm] = []

    @property
    def waiting(self) -> int:
        """How many alarms are set."""
        return sum(not alarm.cancelled for alarm in self._alarms)

    def later(self, seconds: float, action: Callable[[], None]) -> Alarm:
        alarm = Alarm(self.now + seconds, action)
        self._alarms.append(alarm)
        return alarm

    def let_pass(self, seconds: float) -> None:
        """Time passes, and what was to be called by then is called, each at its time."""
        end = self.now + seconds
        while due := [alarm for alarm in self._alarms if alarm.time <= end and not alarm.cancelled]:
            first = min(due, key=lambda alarm: alarm.time)
            self._alarms.remove(first)
            self.now = first.time
            first.action()
        self.now = end


def holds_of(log: LogReader) -> Holds:
    """For a log of which nobody is waited for in earnest."""
    return Holds(log, 10, Clock().later, lambda: None)
