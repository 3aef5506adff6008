"""`top`: what processes use, live. Knows a terminal, and how often to look; not how anything is measured."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mhnos_runtime.cli import exits, say
from mhnos_runtime.cli.target import Handle, target_options
from mhnos_runtime.cli.usage import COMMAND, HEAD, Sampler, Used

if TYPE_CHECKING:
    from types import FrameType

    from mhnos_runtime.cli.terminal import RawMode
    from mhnos_runtime.client.direct import Direct

FIRST_S = 0.5  # the span of the first CPU share
REFRESH_S = 1.5  # htop's
_STDIN = 0
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_LEAVING = ("q", "Q", "\x03", "\x04")
_KEYS = "q quit   p by CPU   m by memory"


@click.command(short_help="Show what processes use, live.")
@click.argument("processes", type=Handle(ended=False), nargs=-1, metavar="[PROCESS...]")
@target_options
def top(url: str | None, token_file: str | None, processes: tuple[int | str, ...]) -> int:
    """Show CPU, memory and tasks of processes, each with everything that it started, live and sorted by CPU;
    without PROCESS of all that run. Keys: m sorts by memory, p by CPU, q leaves. Where the output is no
    terminal, the table is printed once.

    \b
    Examples:
      mhnos-runtime top
      mhnos-runtime top web build
    """
    from mhnos_runtime.cli.lasting import lasting
    from mhnos_runtime.client.discovery import discover

    target = discover(url, token_file)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return lasting(target, lambda runtime: _once(runtime, processes), lambda _text: None)
    with Screen() as screen:
        return lasting(target, lambda runtime: _live(runtime, processes, screen), screen.note, screen.pause)


def _once(runtime: Direct, handles: Sequence[int | str]) -> int:
    sampler = Sampler(handles)
    sampler.sample(runtime, time.monotonic())
    time.sleep(FIRST_S)
    used = by_cpu(sampler.sample(runtime, time.monotonic()))
    say.table(HEAD, [each.cells() for each in used], shrink=COMMAND)
    return exits.OK


def _live(runtime: Direct, handles: Sequence[int | str], screen: Screen) -> int:
    """Until somebody leaves."""
    sampler, order, wait_s = Sampler(handles), by_cpu, FIRST_S
    sampler.sample(runtime, time.monotonic())
    used: list[Used] = []
    while True:
        due = time.monotonic() + wait_s
        while (key := screen.key(due)) is not None:
            if key in _LEAVING:
                return exits.OK
            order = {"m": by_memory, "M": by_memory, "p": by_cpu, "P": by_cpu}.get(key, order)
            screen.show(order(used))
        used = sampler.sample(runtime, time.monotonic())
        screen.show(order(used))
        wait_s = REFRESH_S


def by_cpu(used: Sequence[Used]) -> list[Used]:
    """The busiest first; of equals the one that started first."""
    return sorted(used, key=lambda each: (-(each.cpu_percent or 0.0), each.process.pid))


def by_memory(used: Sequence[Used]) -> list[Used]:
    """The largest first."""
    return sorted(used, key=lambda each: (-(each.usage.rss_bytes or 0), each.process.pid))


def lines(used: Sequence[Used], note: str, columns: int, rows: int) -> list[str]:
    """What a screen of this size shows."""
    cpu = sum(each.cpu_percent or 0.0 for each in used)
    memory = sum(each.usage.rss_bytes or 0 for each in used)
    count = "1 process" if len(used) == 1 else f"{len(used)} processes"
    head = f"{count}, {cpu:.1f} % CPU, {say.size(memory)}   {f'[{note}]' if note else _KEYS}"
    table = say.table_lines(HEAD, [each.cells() for each in used], shrink=COMMAND, columns=columns)
    return [say.cut(head, columns), "", *table][:rows]


@dataclass
class Screen:
    """A terminal that is wholly this command's, until the context is left, however that happens."""

    _note: str = ""
    _used: Sequence[Used] = ()

    def __enter__(self) -> Screen:
        from mhnos_runtime.cli.terminal import RawMode

        with contextlib.ExitStack() as stack:
            self._raw: RawMode = stack.enter_context(RawMode(_STDIN))
            self._wake_r, wake_w = os.pipe()
            os.set_blocking(wake_w, False)
            stack.callback(os.close, self._wake_r)
            stack.callback(os.close, wake_w)
            stack.enter_context(_signals(wake_w))
            self._write(_ENTER)
            stack.callback(self._write, _LEAVE)
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def note(self, text: str) -> None:
        """Say this instead of the keys, with the last table, until there is another one."""
        self._note = text
        self._draw()

    def show(self, used: Sequence[Used]) -> None:
        """Show a table."""
        self._used, self._note = used, ""
        self._draw()

    def _draw(self) -> None:
        """Each line is written over the old one, so that nothing flickers."""
        used = self._used
        size = os.get_terminal_size(sys.stdout.fileno())
        drawn = lines(used, self._note, size.columns or 80, size.lines or 24)
        bold = [
            say.paint(line, say.BOLD, sys.stdout) if number == 2 else line
            for number, line in enumerate(drawn)
        ]
        self._write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in bold) + "\x1b[J")

    def key(self, until: float) -> str | None:
        """The next key; None: none came until then (time.monotonic). A changed size is drawn meanwhile."""
        while True:
            ready, _, _ = select.select([_STDIN, self._wake_r], [], [], max(0.0, until - time.monotonic()))
            if self._wake_r in ready:
                os.read(self._wake_r, 512)
                self._draw()
            elif not ready:
                return None
            else:
                typed = os.read(_STDIN, 1)
                if typed == b"\x1a":
                    self._stop()
                else:
                    return typed.decode("latin-1") or "q"  # the terminal has gone

    def pause(self, seconds: float) -> None:
        """Wait, while there is no server. Raises click's Exit for a key that leaves."""
        if self.key(time.monotonic() + seconds) in _LEAVING:
            raise click.exceptions.Exit(exits.OK)

    def _stop(self) -> None:
        """As Ctrl-Z stops every other program."""
        self._write(_LEAVE)
        self._raw.stop_self()
        self._write(_ENTER)
        self._draw()

    def _write(self, text: str) -> None:
        from mhnos_runtime.cli.descriptors import write_all

        with contextlib.suppress(OSError):
            write_all(sys.stdout.fileno(), text.encode())


@contextlib.contextmanager
def _signals(wake_fd: int) -> Iterator[None]:
    """A new size wakes the loop. Signals that end a command leave by an exception: the terminal is given
    back."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise click.exceptions.Exit(exits.for_signal(number))

    handlers = {
        signal.SIGWINCH: lambda _number, _frame: None,
        **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), end),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    woken = signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
