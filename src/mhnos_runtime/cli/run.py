"""`run`: start a process and stay with it, as a shell does with a program."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import click

from mhnos_runtime.cli import exits, say, worker
from mhnos_runtime.cli.keys import parse_keys
from mhnos_runtime.cli.target import (
    Duration,
    Kind,
    NewName,
    WorkspacePath,
    open_runtime,
    run_async,
    target_options,
)
from mhnos_runtime.errors import MhnosError

if TYPE_CHECKING:
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.client.runtime import Runtime
    from mhnos_runtime.client.types import PtySize, SpawnOptions
    from mhnos_runtime.wire import messages as m

# ms that a process outlives a client that vanished without a goodbye, at least: enough to reconnect
RECONNECT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    kind: str
    command: str
    args: tuple[str, ...]
    interactive: bool
    tty: bool
    detach: bool
    cwd: str | None
    env: dict[str, str]
    name: str | None
    detach_keys: bytes | None
    timeout_ms: int | None = None
    remove: bool = False
    linger_ms: int | None = None
    network: Literal["host", "loopback", "none"] | None = None
    limits: dict[str, int] = field(default_factory=dict)
    dry_run: bool = False
    ports: dict[str, int] | None = None
    worker: m.WorkerOptions | None = None
    print_config: bool = False
    within: int | str | None = None


def _env(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """As docker's: NAME alone passes on the caller's own, and nothing where the caller has none."""
    pairs = (value.partition("=") for value in values)
    found = {name: text if equals else os.environ.get(name) for name, equals, text in pairs}
    return {name: text for name, text in found.items() if text is not None}


def _limits(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    if not values:
        return {}  # what follows takes a tenth of a short command's time to load
    from mhnos_runtime.config.kinds import LIMITS, nearest
    from mhnos_runtime.config.values import Wrong, size_of

    found = {}
    for name, _equals, text in (value.partition("=") for value in values):
        if name not in LIMITS:
            known = ", ".join(LIMITS)
            raise click.BadParameter(f"no limit {name!r}{nearest(name, LIMITS)}; known: {known}", ctx, param)
        try:
            found[name] = size_of(text)
        except Wrong:
            raise click.BadParameter(f"{text!r} is not a number such as 64 or 512m", ctx, param) from None
    return found


def _keys(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    try:
        return None if value is None else parse_keys(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


env_option = click.option(
    "-e", "--env", metavar="NAME[=VALUE]", multiple=True, callback=_env, help="Environment variable."
)


def detach_keys_for(given: bytes | None, raw: bool) -> bytes:
    """Those that were given, else those of the settings, which are read only where keys are typed. Raises
    ConfigError."""
    if given is not None or not raw:
        return given or b""
    from mhnos_runtime.errors import ConfigError

    try:
        return parse_keys(_keys_of_settings())
    except ValueError as error:
        raise ConfigError(f"detach_keys in the settings: {error}") from None


def _keys_of_settings() -> str:
    """A settings file that is another user's, or damaged, is a matter of `serve`."""
    from mhnos_runtime.config import SETTINGS, ConfigError, find

    try:
        return str(find("detach_keys"))
    except ConfigError:
        return next(str(setting.default) for setting in SETTINGS if setting.name == "detach_keys")


detach_keys_option = click.option(
    "--detach-keys",
    metavar="KEYS",
    callback=_keys,
    help="Keys that leave, such as ctrl-],x; without it those of the settings, else ctrl-p,ctrl-q.",
)


@click.command(
    short_help="Start a process and stay with it.",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@click.argument("kind", type=Kind())
@click.argument("command", required=False, default="", type=WorkspacePath())
@click.argument("args", nargs=-1, type=WorkspacePath())
@click.option("-i", "--interactive", is_flag=True, help="Send this command's input to the process.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal of this one's size.")
@click.option("-d", "--detach", is_flag=True, help="Print the pid and leave.")
@click.option(
    "-w",
    "--cwd",
    "--workdir",
    metavar="DIR",
    type=WorkspacePath(folders=True),
    help="Folder of the workspace to start in.",
)
@env_option
@click.option("--timeout", "timeout_ms", type=Duration(), help="End it after so long: 30s, 5m, 1500ms.")
@click.option("--rm", "remove", is_flag=True, help="Remove record and output when the process has ended.")
@click.option(
    "--linger",
    "linger_ms",
    type=Duration(),
    help="End the process so long after nobody is attached any more: 0, 30s, 5m.",
)
@click.option("--name", type=NewName(), metavar="NAME", help="What to call it, instead of its pid.")
@click.option(
    "--network", type=click.Choice(("host", "loopback", "none")), help="Less network than the server gives."
)
@click.option(
    "--limit",
    "limits",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=_limits,
    help="Less than the server allows: memory_bytes=512m, tasks=64, cpu_percent=50, ...",
)
@click.option("--dry-run", is_flag=True, help="Print what would be executed, and how confined, as JSON.")
@detach_keys_option
@click.option(
    "-p", "--port", "ports", metavar="NAME[=NUMBER]", multiple=True, callback=worker.ports_option,
    help="Port by its name in the kind or config; without a number any free one.",
)  # fmt: skip
@worker.worker_options
@target_options
def run(url: str | None, token_file: str | None, **options: object) -> int:
    """Start a process of KIND (node, python, shell, workerd, openclaw, or one that the server declares) and
    stay with it.

    Options after KIND belong to the program. For a shell, several words are a program and its arguments, one
    word is a script, and -c is as in sh. The exit code is the program's; 128+N when signal N ended it,
    124 after a timeout, 125 when the runtime failed, 126 and 127 when the program could not be started.

    Without -t, Ctrl-C goes to the process first; a second one ends it. The process outlives this command when
    it is detached from, terminated or cut off, unless --linger is given: --linger 0 ends it with this
    command, a few seconds later where this command could not say goodbye.

    When the process has ended, record and output are kept for 10 minutes, and among the last 256
    (retain_seconds and retain_count in the settings), for `logs`, `ps -a` and `attach`; with --rm they are
    not.

    \b
    Examples:
      mhnos-runtime run -it shell
      mhnos-runtime run shell npm install
      mhnos-runtime run shell 'cd app && make'
      mhnos-runtime run python app.py --verbose
      mhnos-runtime run --timeout 30s --env DEBUG=1 node build.js
      sort words.txt | mhnos-runtime run -i python count.py
      mhnos-runtime run -d --name web node server.js
      mhnos-runtime run -it --rm shell
      mhnos-runtime run workerd hello.js --watch
      mhnos-runtime run --port http=8080 workerd app.capnp
      mhnos-runtime run openclaw gateway
    """
    options["worker"] = worker.take(options)
    return carry_out(Plan(**options), url, token_file)  # type: ignore[arg-type]


def carry_out(plan: Plan, url: str | None, token_file: str | None) -> int:
    """Start what the plan says and stay with it; returns this command's exit code."""
    if plan.tty and plan.interactive and not (plan.detach or plan.dry_run) and not os.isatty(0):
        say.error("the input device is not a TTY", "leave -t out to pipe input, or -i to give none")
        return exits.FAILED
    try:
        return run_async(_run(plan, url, token_file))
    except MhnosError as error:
        say.error(error.message, error.hint)
        return exits.RUNTIME_FAILED


async def _run(plan: Plan, url: str | None, token_file: str | None) -> int:
    from mhnos_runtime.cli.session import Manner, Session, StatusLines
    from mhnos_runtime.client.errors import RequestFailed

    status = StatusLines()
    async with open_runtime(
        url, token_file, on_state=status.connection, on_uncertain=status.uncertain
    ) as runtime:
        try:
            if plan.print_config:
                print(await _config(runtime, plan), end="")
                return exits.OK
            if plan.dry_run:
                return _show(await runtime.plan(plan.kind, plan.command, **_options(plan)))
            attach = not plan.detach
            process = await runtime.spawn(plan.kind, plan.command, attach=attach, **_options(plan))
        except RequestFailed as error:
            say.error(error.message, _hint(plan, error))
            return exits.for_start_failure(error.code)
        if plan.detach:
            print(process.pid)
            return exits.OK
        if not plan.interactive and not plan.tty:
            with suppress(RequestFailed):  # it may have ended already
                await process.close_stdin()
        manner = Manner(
            raw=plan.tty and plan.interactive,
            feed=plan.interactive,
            detach_keys=detach_keys_for(plan.detach_keys, plan.tty and plan.interactive),
            close_at_end=not plan.tty,
            end_on_leave=plan.linger_ms == 0,
            timeout_ms=plan.timeout_ms,
        )
        return await Session(runtime, process, manner, status).run()


async def _config(runtime: Runtime, plan: Plan) -> str:
    """The config that a script of workerd would run with."""
    from mhnos_runtime.wire import messages as m

    options = m.SpawnOptions(cwd=plan.cwd)
    asked = m.WorkerConfig(command=plan.command, options=options, network=plan.network, worker=plan.worker)
    return (await runtime.request(asked, m.WorkerConfigText, resend=True)).config


def _show(planned: m.Planned) -> int:
    import json

    from mhnos_runtime.wire.encode import encode

    told = json.loads(encode(planned))
    print(json.dumps({name: told[name] for name in ("directory", "isolation", "plan")}, indent=2))
    return exits.OK


def _options(plan: Plan) -> SpawnOptions:
    return {
        "args": plan.args,
        "cwd": plan.cwd,
        "env": plan.env,
        "timeout_ms": plan.timeout_ms,
        "pty": _pty(plan),
        "name": plan.name,
        "network": plan.network,
        "limits": plan.limits,
        "ports": plan.ports,
        "worker": plan.worker,
        "within": plan.within,
        "linger_ms": None if plan.linger_ms is None else _linger_ms(plan),
        "remove": plan.remove,
    }


def _linger_ms(plan: Plan) -> int:
    """This command says goodbye at its end; one that vanished is given the time to come back."""
    return plan.linger_ms or 0 if plan.detach else max(plan.linger_ms or 0, RECONNECT_MS)


def _pty(plan: Plan) -> PtySize | Literal[False] | None:
    """A terminal of this one's size, or pipes. With -d what the kind has by itself, and pipes for a shell's
    command."""
    from mhnos_runtime.cli.terminal import size_of
    from mhnos_runtime.process.words import is_interactive

    if plan.tty:
        return size_of(0)
    if plan.within is not None or not plan.detach:
        return False
    if plan.kind == "shell" and not is_interactive(plan.command, plan.args):
        return False
    return None


def _hint(plan: Plan, error: RequestFailed) -> str:
    """The server's; for a program in the place of the kind, the command line that runs it."""
    if error.code != "unknown-kind":
        return error.hint
    words = [plan.kind, *([plan.command] if plan.command else []), *plan.args]
    flags = "".join(
        letter for letter, on in zip("itd", (plan.interactive, plan.tty, plan.detach), strict=True) if on
    )
    start = "mhnos-runtime run " + (f"-{flags} " if flags else "")
    script = shlex.join(words) if len(words) > 1 else plan.kind
    return f"use: {start}shell {shlex.quote(script)}; as a kind {error.hint}"
