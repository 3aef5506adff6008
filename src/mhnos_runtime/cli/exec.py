"""`exec`: run a program in the sandbox of a process, and stay with it as `run` does."""

from __future__ import annotations

import click

from mhnos_runtime.cli.run import Plan, carry_out, detach_keys_option, env_option
from mhnos_runtime.cli.target import Handle, NewName, WorkspacePath, target_options


@click.command(
    short_help="Run a program in the sandbox of a process.",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@click.argument("process", metavar="PROCESS", type=Handle(ended=False))
@click.argument("command")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Send this command's input to the program.")
@click.option("-t", "--tty", is_flag=True, help="Give the program a terminal of this one's size.")
@click.option("-d", "--detach", is_flag=True, help="Print the new pid and leave.")
@env_option
@click.option(
    "-w",
    "--cwd",
    "--workdir",
    metavar="DIR",
    type=WorkspacePath(folders=True),
    help="Folder of the workspace to start in; else the process's.",
)
@click.option("--name", type=NewName(), metavar="NAME", help="What to call it, instead of its pid.")
@detach_keys_option
@target_options
def exec(  # noqa: A001 - the verb's name
    url: str | None,
    token_file: str | None,
    process: int | str,
    command: str,
    args: tuple[str, ...],
    interactive: bool,
    tty: bool,
    detach: bool,
    env: dict[str, str],
    cwd: str | None,
    name: str | None,
    detach_keys: bytes | None,
) -> int:
    """Run COMMAND in the sandbox of PROCESS: with its namespaces, network, limits and environment.

    It ends with PROCESS.

    Options after PROCESS belong to the program. Several words are a program and its arguments; one word is a
    command line of a shell. The exit code is as that of `run`.

    \b
    Examples:
      mhnos-runtime exec -it web bash
      mhnos-runtime exec web ps aux
      mhnos-runtime exec web 'kill -HUP $(pidof node)'
      mhnos-runtime exec -d -e DEBUG=1 --cwd app web npm run watch
    """
    plan = Plan(
        kind="shell",
        command=command,
        args=args,
        interactive=interactive,
        tty=tty,
        detach=detach,
        cwd=cwd,
        env=env,
        name=name,
        detach_keys=detach_keys,
        within=process,
    )
    return carry_out(plan, url, token_file)
