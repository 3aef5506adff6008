"""Options of `run` that say what a worker's config is made of. Knows no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import WorkerOptions


def ports_option(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, int] | None:
    """NAME or NAME=NUMBER; the callback of --port."""
    ports = {}
    for value in values:
        name, _, number = value.partition("=")
        if not name or (number and not (number.isascii() and number.isdigit() and int(number) < 65536)):
            raise click.BadParameter(f"{value!r} is neither NAME nor NAME=NUMBER")
        ports[name] = int(number or 0)
    return ports or None


_OPTIONS = (
    click.option("--binding", "bindings", metavar="NAME=VALUE", multiple=True,
                 help="workerd: bind a text, or JSON as NAME:=JSON."),
    click.option("--bind-env", metavar="NAME", multiple=True, help="workerd: bind a variable of --env."),
    click.option("--module", "modules", metavar="FILE", multiple=True,
                 help="workerd: a file beside the script that it imports."),
    click.option("--compat-date", metavar="DATE", help="workerd: compatibility date."),
    click.option("--compat-flag", "compat_flags", metavar="FLAG", multiple=True,
                 help="workerd: compatibility flag, such as nodejs_compat."),
    click.option("--heap", "heap_mb", type=click.IntRange(16), metavar="MB", help="workerd: heap limit."),
    click.option("--outbound", type=click.Choice(("public", "none")), help="workerd: what fetch reaches."),
    click.option("--keep-config", metavar="FILE", help="workerd: write the config to FILE of the workspace."),
    click.option("--print-config", is_flag=True, help="workerd: print the config, and leave."),
)  # fmt: skip


_NAMES = (
    *("bindings", "bind_env", "modules", "compat_date", "compat_flags"),
    *("heap_mb", "outbound", "keep_config"),
)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator that adds them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take(options: dict[str, Any]) -> WorkerOptions | None:
    """Take them out of a command's parameters; None where none was given. Raises click.BadParameter."""
    given = {name: options.pop(name) for name in _NAMES}
    if not any(given.values()):
        return None
    from mhnos_runtime.wire.messages import WorkerOptions

    return WorkerOptions(
        bindings=_bindings(given["bindings"]),
        environment=list(given["bind_env"]),
        modules=list(given["modules"]),
        compatibility_date=given["compat_date"],
        compatibility_flags=list(given["compat_flags"]),
        heap_mb=given["heap_mb"] or 0,
        outbound=given["outbound"] or "public",
        keep=given["keep_config"],
    )


def _bindings(values: tuple[str, ...]) -> dict[str, Any]:
    import msgspec

    bindings = {}
    for value in values:
        name, equals, text = value.partition("=")
        is_json = name.endswith(":")
        if not equals or not name.rstrip(":"):
            raise click.BadParameter(f"--binding: {value!r} is neither NAME=TEXT nor NAME:=JSON")
        try:
            encoded = json.dumps(json.loads(text) if is_json else text)
        except ValueError as error:
            raise click.BadParameter(f"--binding: {text!r} is no JSON ({error})") from None
        bindings[name.removesuffix(":")] = msgspec.Raw(encoded.encode())
    return bindings
