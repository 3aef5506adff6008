"""One person (or pipe) at one process: output, input, signals, detaching, reconnecting.

Knows a client's process and file descriptors 0 to 2; knows no command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from mhnos_runtime.cli import endings, exits, say
from mhnos_runtime.cli.descriptors import STDERR, STDIN, STDOUT, terminals
from mhnos_runtime.cli.keys import DetachKeys
from mhnos_runtime.cli.lines import gap_in_words
from mhnos_runtime.cli.questions import QuestionFilter, Quiet
from mhnos_runtime.cli.screen import Modes
from mhnos_runtime.cli.terminal import RawMode, Sink, Source, size_of
from mhnos_runtime.client.errors import ClientError, RequestFailed
from mhnos_runtime.client.process import ClientProcess
from mhnos_runtime.client.runtime import ConnectionState, Runtime
from mhnos_runtime.client.types import ExitInfo, Gap, InputUncertain
from mhnos_runtime.wire import messages as m

CTRL_C = b"\x03"
# chunks of keys that wait behind a paste; more than a person types blindly
KEY_CHUNKS = 64
# how long a key that may begin the detach keys waits for the next: two keys under one Ctrl come within this
HELD_KEY_S = 0.25
# bytes; from here on it is a paste, which a program may read slowly: it waits to be taken. Keys never wait.
PASTE_BYTES = 512
SHOWN_UNCERTAIN_BYTES = 40  # enough to recognise what was typed
END_TIMEOUT_S = 15.0  # above the server's grace before SIGKILL
ASK_TIMEOUT_S = 2.0  # for a detail of the last line: the exit code does not wait for it longer


@dataclass(frozen=True, slots=True)
class Manner:
    """raw: stdin is a terminal, and every key goes to the process. feed: stdin goes there at all.

    close_at_end: the end of stdin is the end of the process's. forward_interrupt: Ctrl-C is for the process.
    forward_terminate: so is the first SIGTERM, unless raw. end_on_leave: whoever leaves ends the process.
    timeout_ms: after which it was asked to be ended.
    """

    raw: bool
    feed: bool
    detach_keys: bytes = b""
    close_at_end: bool = False
    forward_interrupt: bool = True
    forward_terminate: bool = False
    end_on_leave: bool = False
    timeout_ms: int | None = None


class StatusLines:
    """Lines for the person between the process's own. Made before the connection that it reports on."""

    def __init__(self) -> None:
        self.raw = False
        self._sink: Sink | None = None
        self._process: ClientProcess | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unwritten = False

    def use(self, sink: Sink, process: ClientProcess) -> None:
        """From now on through the same thread as the process's stderr, which keeps the order. process: whose
        end makes the connection unimportant, as a server that stops closes it then."""
        self._sink, self._process = sink, process

    def say(self, text: str) -> None:
        """One line in brackets. In raw mode it may meet a cursor anywhere in a line."""
        shown = say.printable(text)
        line = f"\r\n[{shown}]\r\n" if self.raw else f"[{shown}]\n"
        if self._sink is not None:
            task = asyncio.ensure_future(self._sink.write(line.encode()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._unwritten = True

    async def written(self) -> None:
        """Until all that was said is out: what the process writes later must not overtake it."""
        if self._unwritten and self._sink is not None:
            self._unwritten = False
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with contextlib.suppress(OSError):  # nobody reads the status lines: the output still counts
                await self._sink.flush()

    def connection(self, state: ConnectionState) -> None:
        """For the client's `on_state`."""
        if self._process is None or self._process.exit is None:
            self.say("connection lost, reconnecting..." if state == "lost" else "resumed")

    def uncertain(self, found: InputUncertain) -> None:
        """For the client's `on_uncertain`."""
        self.say(uncertain_in_words(found))


class Session:
    """One terminal or pipe at one process. Call `run` once, inside the runtime's context."""

    def __init__(self, runtime: Runtime, process: ClientProcess, manner: Manner, status: StatusLines) -> None:
        self._runtime = runtime
        self._process = process
        self._manner = manner
        self._status = status
        self._stdout, self._stderr = Sink(STDOUT), Sink(STDERR)
        self._left: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._keys: asyncio.Queue[bytes] = asyncio.Queue(KEY_CHUNKS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._modes = Modes()
        self._quiet = Quiet(*terminals())
        self._interrupts = 0
        self._terminated = False
        status.use(self._stderr, process)
        process.on_news_told = self._tell_news
        self._told = ""

    async def run(self) -> int:
        """Until the process has ended or the person has left; returns this command's exit code.

        Raises ClientError when the process or the connection is lost for good; BrokenPipeError when the
        reader of this command's output has gone.
        """
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(RawMode(STDIN)) if self._manner.raw else None
            self._status.raw = raw is not None
            stack.enter_context(self._signals(raw))
            output = asyncio.create_task(self._show_output())
            try:
                self._tell_news()
                self._begin_input()
                ends: list[asyncio.Future[Any]] = [output, self._left]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                return await self._finish(output)
            finally:
                await _cancelled(output, *self._tasks)
                self._status.raw = False

    # Output

    async def _show_output(self) -> None:
        questions = QuestionFilter(live=True)
        last = self._stdout
        async for item in self._process.output():
            if isinstance(item, Gap):
                self._status.say(gap_in_words(item))
                continue
            await self._status.written()
            sink = self._stderr if item.stream == "stderr" else self._stdout
            if sink is not last:
                await last.flush()  # two threads write: the order between the streams is kept here
                last = sink
            data = item.data
            if not self._manner.raw:
                data = self._quiet.feed(item.stream, data)
            elif item.replay:
                data = questions.feed(data)
            else:
                data = questions.rest() + data
            self._modes.feed(data)
            self._process.repaint_on_resume = self._draws_anew()
            await sink.write(data)
        await self._flush()

    def _draws_anew(self) -> bool:
        """Status lines of a lost connection stand across the screen of a full-screen program, which then has
        to draw it anew. A grant that only views may not ask for that."""
        return self._manner.raw and self._modes.alternate and self._runtime.has_scope("control")

    def _tell_news(self) -> None:
        """Where the process can be reached, once it serves; or that it does not."""
        told = news_in_words(self._process)
        if told and told != self._told:
            self._told = told
            self._status.say(told)

    async def _flush(self) -> None:
        await self._stdout.flush()
        await self._stderr.flush()

    async def _finish(self, output: asyncio.Task[None]) -> int:
        if not self._manner.raw and self._modes.touched and os.isatty(STDOUT):
            await self._stdout.write(self._modes.undo())
            await self._stdout.flush()
        if output.done():
            if isinstance(output.exception(), BrokenPipeError):
                await self._leave_process()
                await self._status.written()
            if self._manner.raw and not await self._ended_in_order(output):
                await self._undo()
            output.result()
            ended = await self._process.wait()
            await self._tell_reason(ended)
            return exits.for_exit(ended)
        if self._manner.raw:
            await self._undo()
        await self._leave_process()
        with contextlib.suppress(TimeoutError, OSError):
            await asyncio.wait_for(self._flush(), 1)
        return self._left.result()

    async def _leave_process(self) -> None:
        if self._manner.end_on_leave:
            await self._end_process()
        else:
            pid = self._process.pid
            self._status.say(f"process {pid} goes on; `mhnos-runtime attach {pid}` comes back to it")
            await asyncio.sleep(0)

    async def _ended_in_order(self, output: asyncio.Task[None]) -> bool:
        """Whether it could set the terminal back itself: one that was killed or lost could not."""
        if output.exception() is not None or self._modes.alternate:
            return False
        return (await self._process.wait()).reason == "exit"

    async def _undo(self) -> None:
        """Before what is said next: two threads write, and on a screen that goes nobody would see it."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(1):
                await self._stdout.write(self._modes.undo())
                await self._stdout.flush()

    async def _tell_reason(self, ended: ExitInfo) -> None:
        """Why it ended, where that was neither its own doing nor this command's."""
        own = self._terminated or self._interrupts > 1
        own = own or (self._interrupts == 1 and ended.signal == "SIGINT")
        if ended.reason in ("killed", "signal") and own:
            return
        limit_bytes, timeout_ms = None, self._manner.timeout_ms
        if ended.reason in ("memory", "timeout"):
            limit_bytes, timeout_ms = await self._held_to()
        said = endings.reason(ended, limit_bytes, self._manner.timeout_ms or timeout_ms)
        if said:
            self._status.say(said)
            await self._status.written()

    async def _held_to(self) -> tuple[int | None, int | None]:
        """Its limit of memory, and its time-out in ms. A record that went with the end tells neither."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                asked = m.Inspect(pid=self._process.pid)
                told = (await self._runtime.request(asked, m.Inspected, resend=True)).process
        except (ClientError, TimeoutError):
            return None, None
        limit = told.limits.memory_bytes if isinstance(told.limits, m.ProcessLimits) else None
        return limit, told.timeout_ms if isinstance(told.timeout_ms, int) else None

    async def _end_process(self) -> None:
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.kill("SIGTERM")
        except (ClientError, TimeoutError) as error:
            say.error(f"process {self._process.pid} could not be ended: {error}")

    # Input

    def _begin_input(self) -> None:
        if self._manner.feed:
            self._start(self._read_keys() if self._manner.raw else self._pipe_stdin())
        if self._manner.raw:
            self._start(self._send_keys())
            self._tell_size()

    async def _read_keys(self) -> None:
        """Looks for the detach keys also while there is no connection; then Ctrl-C leaves too."""
        keys = DetachKeys(self._manner.detach_keys)
        loop = asyncio.get_running_loop()
        release: asyncio.TimerHandle | None = None
        async for typed in chunks(STDIN):
            if release is not None:
                release.cancel()
            passed, detach = keys.feed(typed)
            if passed and self._runtime.connected:
                await self._keys.put(passed)
            elif passed:
                self._typed_blindly(passed)
            release = (
                loop.call_later(HELD_KEY_S, lambda: self._put_key(keys.release())) if keys.held else None
            )
            if detach:
                self._leave(exits.OK)

    def _typed_blindly(self, typed: bytes) -> None:
        """Without a connection Ctrl-C leaves, and keys are kept for the next one."""
        if CTRL_C in typed:
            self._leave(exits.INTERRUPTED)
        self._put_key(typed)

    def _put_key(self, typed: bytes) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._keys.put_nowait(typed)

    async def _send_keys(self) -> None:
        while True:
            typed = await self._keys.get()
            while not self._keys.empty() and len(typed) < PASTE_BYTES:
                typed += self._keys.get_nowait()
            try:
                if len(typed) < PASTE_BYTES:
                    self._process.write_nowait(typed)
                else:
                    await self._process.write(typed)
            except RequestFailed as error:
                if error.code == "input-full":
                    self._status.say("some keys were dropped: the process does not read")
                # Else it has closed its input: its end, or its output, says why.

    async def _pipe_stdin(self) -> None:
        try:
            async for data in chunks(STDIN):
                await self._process.write(data)
            if self._manner.close_at_end:
                await self._process.close_stdin()
        except RequestFailed:
            pass  # the process has closed its input, as `yes | head` does: not a failure of either

    # Signals

    @contextlib.contextmanager
    def _signals(self, raw: RawMode | None) -> Iterator[None]:
        """Handlers for as long as the session lasts."""
        handlers: dict[signal.Signals, Callable[[], None]] = {
            number: lambda number=number: self._leave(exits.for_signal(number))  # type: ignore[misc]
            for number in (signal.SIGTERM, signal.SIGHUP)
        }
        if raw is not None:
            handlers[signal.SIGINT] = lambda: self._leave(exits.INTERRUPTED)
            handlers[signal.SIGQUIT] = lambda: self._leave(exits.for_signal(signal.SIGQUIT))
            handlers[signal.SIGWINCH] = self._tell_size
            handlers[signal.SIGTSTP] = raw.stop_self
            handlers[signal.SIGCONT] = lambda: self._continued(raw)
        elif self._manner.forward_interrupt:
            handlers[signal.SIGINT] = self._interrupt
        if raw is None and self._manner.forward_terminate:
            handlers[signal.SIGTERM] = self._terminate
        loop = asyncio.get_running_loop()
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        """The first is the process's own, the second ends it, the third leaves."""
        self._interrupts += 1
        if self._interrupts == 1:
            self._start(self._signal_process("SIGINT"))
        elif self._interrupts == 2 and self._runtime.connected:
            self._start(self._signal_process("SIGKILL"))
        else:
            self._leave(exits.INTERRUPTED)

    def _terminate(self) -> None:
        """As docker: who ends this command, such as timeout(1), means the process. The second leaves."""
        if self._terminated or not self._runtime.connected:
            self._leave(exits.for_signal(signal.SIGTERM))
        else:
            self._terminated = True
            self._start(self._signal_process("SIGTERM"))

    async def _signal_process(self, name: str) -> None:
        try:
            await self._process.kill(name)
        except ClientError as error:
            self._status.say(f"{name} could not be sent: {error.message}")

    def _continued(self, raw: RawMode) -> None:
        raw.enter()
        self._tell_size()

    def _tell_size(self) -> None:
        size = size_of(STDIN)
        self._start(self._process.resize(size.cols, size.rows))

    # Helpers

    def _leave(self, code: int) -> None:
        if not self._left.done():
            self._left.set_result(code)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def chunks(fd: int) -> AsyncIterator[bytes]:
    """What can be read from a descriptor, until its end."""
    source = Source(fd)
    try:
        while chunk := await source.read():
            yield chunk
    finally:
        source.close()


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def news_in_words(process: ClientProcess) -> str:
    """One line about where a process can be reached, or why it cannot; "" while there is nothing to say."""
    readiness = process.readiness
    if readiness is not None and readiness.state == "failed":
        return f"not ready: {readiness.reason}"
    if readiness is not None and readiness.state == "starting":
        return ""
    shown = [
        f"{port.name} {port.url}" if isinstance(port.url, str) else f"{port.name} {port.address}:{port.port}"
        for port in process.ports
        if port.address is not None
    ]
    return f"listening: {', '.join(shown)}" if shown else "ready" if readiness is not None else ""


def uncertain_in_words(found: InputUncertain) -> str:
    """Which bytes of the input may be missing."""
    shown = repr(found.data[:SHOWN_UNCERTAIN_BYTES])[1:] + (
        "..." if len(found.data) > SHOWN_UNCERTAIN_BYTES else ""
    )
    return (
        f"the server was killed while it typed {shown}: bytes {found.from_} to {found.to} of the input, "
        "of which the process may have all, some or none"
    )
