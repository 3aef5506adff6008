"""The output log: what a process wrote, addressed by byte offset, with bounded retention. Pure: no event
loop."""

from mhnos_runtime.output.cursor import Cursor, Overrun
from mhnos_runtime.output.holds import Hold, Holds
from mhnos_runtime.output.layout import NO_HOLD
from mhnos_runtime.output.reader import Chunk, LogReader
from mhnos_runtime.output.writer import LogWriter

__all__ = ["NO_HOLD", "Chunk", "Cursor", "Hold", "Holds", "LogReader", "LogWriter", "Overrun"]
