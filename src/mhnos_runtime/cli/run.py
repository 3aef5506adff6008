"""`run`: start a process and stay with it, as a shell does with a program."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from mhnos_runtime.cli import exits, say, worker
from mhnos_runtime.cli.keys import DEFAULT_DETACH_KEYS, parse_keys
from mhnos_runtime.cli.target import Duration, Kind, open_runtime, run_async, target_options
from mhnos_runtime.errors import MhnosError

if TYPE_CHECKING:
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.client.runtime import Runtime
    from mhnos_runtime.client.types import PtySize, SpawnOptions
    from mhnos_runtime.wire import messages as m

# ms that a process of --rm outlives a client that vanished without a goodbye: enough to reconnect
RM_LINGER_MS = 10_000


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
    timeout_ms: int | None
    remove: bool
    name: str | None
    network: Literal["host", "loopback", "none"] | None
    limits: dict[str, int]
    dry_run: bool
    ports: dict[str, int] | None
    worker: m.WorkerOptions | None
    print_config: bool
    detach_keys: bytes


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


def _keys(ctx: click.Context, param: click.Parameter, value: str) -> bytes:
    try:
        return parse_keys(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


detach_keys_option = click.option(
    "--detach-keys", default=DEFAULT_DETACH_KEYS, show_default=True, callback=_keys, help="Keys that leave."
)


@click.command(
    short_help="Start a process and stay with it.",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@click.argument("kind", type=Kind())
@click.argument("command", required=False, default="")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Send this command's input to the process.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal of this one's size.")
@click.option("-d", "--detach", is_flag=True, help="Print the pid and leave.")
@click.option("--cwd", metavar="DIR", help="Folder of the workspace to start in.")
@click.option(
    "-e", "--env", metavar="NAME[=VALUE]", multiple=True, callback=_env, help="Environment variable."
)
@click.option("--timeout", "timeout_ms", type=Duration(), help="End it after so long: 30s, 5m, 1500ms.")
@click.option("--rm", "remove", is_flag=True, help="End the process when this command goes away.")
@click.option("--name", help="A name to show in lists.")
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
    it is detached from, terminated or cut off, unless --rm is given: then it ends with this command, a few
    seconds later where this command could not say goodbye.

    \b
    Examples:
      mhnos-runtime run -it shell
      mhnos-runtime run shell npm install
      mhnos-runtime run shell 'cd app && make'
      mhnos-runtime run python app.py --verbose
      mhnos-runtime run --timeout 30s --env DEBUG=1 node build.js
      sort words.txt | mhnos-runtime run -i python count.py
      mhnos-runtime run -d --name web node server.js
      mhnos-runtime run workerd hello.js --watch
      mhnos-runtime run --port http=8080 workerd app.capnp
      mhnos-runtime run openclaw gateway
    """
    options["worker"] = worker.take(options)
    plan = Plan(**options)  # type: ignore[arg-type]
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
            detach_keys=plan.detach_keys,
            close_at_end=not plan.tty,
            end_on_leave=plan.remove,
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
        "linger_ms": RM_LINGER_MS if plan.remove else None,
    }


def _pty(plan: Plan) -> PtySize | Literal[False] | None:
    """A terminal of this one's size, or pipes. With -d what the kind has by itself, and pipes for a shell's
    command."""
    from mhnos_runtime.cli.terminal import size_of
    from mhnos_runtime.process.words import is_interactive

    if plan.tty:
        return size_of(0)
    if not plan.detach or (plan.kind == "shell" and not is_interactive(plan.command, plan.args)):
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
    return (
        f"use: {start}shell {shlex.quote(shlex.join(words))}; {error.hint.replace('use one of', 'kinds are')}"
    )
