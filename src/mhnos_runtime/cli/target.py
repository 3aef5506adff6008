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


def _given_before(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """After the verb, or before it."""
    given: str | None = ctx.find_root().params.get(str(param.name))
    return given if value is None else value


def target_options(function: F) -> F:
    """Adds --url and --token-file. Both may stand before the verb too."""
    function = click.option(
        "--token-file",
        metavar="FILE",
        type=click.Path(),
        callback=_given_before,
        help="File that holds the token.",
    )(function)
    return click.option("--url", metavar="URL", callback=_given_before, help="Address of the runtime.")(
        function
    )


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


def signal_name(text: str) -> str | None:
    """SIGKILL for "KILL", "sigkill" and "9"; None for what is no signal."""
    text = text.upper()
    try:
        if text.isdigit():
            return signals.Signals(int(text)).name
        return signals.Signals[text if text.startswith("SIG") else f"SIG{text}"].name
    except (KeyError, ValueError):
        return None


class Signal(ParamType):
    """A signal by name, with or without SIG, or by number; as its full name."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = signal_name(str(value))
        if name is None:
            self.fail(f"{value!r} is not a signal such as TERM, INT, KILL or 9", param, ctx)
        return name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002 - click's signature
        from click.shell_completion import CompletionItem

        names = (item.name.removeprefix("SIG") for item in signals.Signals)
        wanted = incomplete.upper().removeprefix("SIG")
        return [CompletionItem(name) for name in names if name.startswith(wanted)]


class Handle(ParamType):
    """A process of the runtime: an int for its pid, else its name. ended: which ones completion offers; None:
    all."""

    name = "process"

    def __init__(self, ended: bool | None = None) -> None:
        self._ended = ended

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        from mhnos_runtime.errors import InvalidRequest
        from mhnos_runtime.process import names

        text = str(value)
        if text.isascii() and text.isdigit():
            return int(text)
        try:
            names.check(text)
        except InvalidRequest:
            self.fail(f"{text!r} is neither a pid nor a name; `mhnos-runtime ps` lists them", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        from mhnos_runtime.cli import complete

        return complete.handles(ctx, incomplete, self._ended)


class NewName(ParamType):
    """What a process shall be called. The rule is the server's; it is checked before anything is asked."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from mhnos_runtime.errors import InvalidRequest
        from mhnos_runtime.process import names

        try:
            names.check(str(value))
        except InvalidRequest as error:
            self.fail(f"{error.message.removeprefix('name: ')}; {error.hint}", param, ctx)
        return str(value)


class Kind(ParamType):
    """What a process is; the server knows which kinds there are."""

    name = "kind"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        from mhnos_runtime.cli import complete

        return complete.kinds(incomplete)


class WorkspacePath(ParamType):
    """A path in the workspace, which completion shows where the workspace is a folder of this machine.
    folders: whether files are left out."""

    name = "path"

    def __init__(self, folders: bool = False) -> None:
        self._folders = folders

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from mhnos_runtime.cli import complete

        return complete.paths(ctx, param, incomplete, self._folders)
