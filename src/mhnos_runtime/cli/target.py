"""Options and helpers that every verb which talks to a runtime shares: address, token, durations, signals."""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.runtime import ConnectionState, Runtime
    from mhnos_runtime.client.types import InputUncertain

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic only in newer versions of click

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_UNITS_MS = {"ms": 1, "": 1000, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
CONNECT_TIMEOUT_S = 10.0
COMPLETION_TIMEOUT_S = 0.5  # a Tab key that takes longer feels broken


def target_options(function: F) -> F:
    """Adds --url and --token-file."""
    function = click.option(
        "--token-file", metavar="FILE", type=click.Path(), help="File that holds the token."
    )(function)
    return click.option("--url", metavar="URL", help="Address of the runtime.")(function)


def open_runtime(
    url: str | None,
    token_file: str | None,
    *,
    reconnect: bool = True,
    on_state: Callable[[ConnectionState], None] | None = None,
    on_uncertain: Callable[[InputUncertain], None] | None = None,
) -> Runtime:
    """The runtime that the options, the environment or this machine name; to be entered with `async with`."""
    from mhnos_runtime.client.discovery import discover
    from mhnos_runtime.client.runtime import Runtime

    found = discover(url, token_file)
    return Runtime(found.url, found.token, reconnect=reconnect, on_state=on_state, on_uncertain=on_uncertain)


def open_direct(url: str | None, token_file: str | None, timeout_s: float = CONNECT_TIMEOUT_S) -> Direct:
    """As open_runtime, for verbs that ask one thing: no event loop, no reconnecting; for use by `with`."""
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.client.discovery import discover

    return Direct.open(discover(url, token_file), timeout_s)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """The one way in which a verb enters an event loop."""
    import asyncio

    return asyncio.run(work)


class Duration(ParamType):
    """A time span in milliseconds: "1500ms", "30s" or "30", "5m", "2h", "1d"."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        span_ms = parse_duration_ms(str(value))
        if span_ms is None:
            self.fail(f"{value!r} is not a duration such as 1500ms, 30s, 5m or 2h", param, ctx)
        return span_ms


def parse_duration_ms(text: str) -> int | None:
    """Milliseconds; None if the text is no duration."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?)(ms|s|m|h|d|)", text.strip())
    return round(float(match[1]) * _UNITS_MS[match[2]]) if match else None


class Signal(ParamType):
    """A signal by name, with or without SIG, or by number; as its full name."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            text = str(value).upper()
            if text.isdigit():
                return signals.Signals(int(text)).name
            return signals.Signals[text if text.startswith("SIG") else f"SIG{text}"].name
        except (KeyError, ValueError):
            self.fail(f"{value!r} is not a signal such as TERM, INT, KILL or 9", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002 - click's signature
        from click.shell_completion import CompletionItem

        names = (item.name.removeprefix("SIG") for item in signals.Signals)
        wanted = incomplete.upper().removeprefix("SIG")
        return [CompletionItem(name) for name in names if name.startswith(wanted)]


class Pid(ParamType):
    """A process of the runtime."""

    name = "pid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not str(value).isdigit():
            self.fail(f"{value!r} is not a pid; `mhnos-runtime ps` lists them", param, ctx)
        return int(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        found = _pids(ctx.params.get("url"), ctx.params.get("token_file"))
        return [CompletionItem(pid, help=about) for pid, about in found if pid.startswith(incomplete)]


class Kind(ParamType):
    """What a process is; the server knows which kinds there are."""

    name = "kind"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        return [CompletionItem(kind) for kind in _kinds() if kind.startswith(incomplete)]


def _kinds() -> list[str]:
    from mhnos_runtime.config import BUILT_IN_KINDS, load

    try:
        own = [kind.name for kind in load()[0].kinds]
    except Exception:  # a completion is silent, whatever fails
        own = []
    return [*BUILT_IN_KINDS, *own]


def _pids(url: str | None, token_file: str | None) -> list[tuple[str, str]]:
    from mhnos_runtime.wire import messages as m

    try:
        with open_direct(url, token_file, COMPLETION_TIMEOUT_S) as runtime:
            rows = runtime.ask(m.List(all=True), m.ProcessList, COMPLETION_TIMEOUT_S).processes
        return [(str(row.pid), f"{row.type} {row.command}") for row in rows]
    except Exception:  # a completion is silent, whatever fails
        return []
