"""`completion`: the script by which a shell completes this command's verbs, options, pids and kinds."""

from __future__ import annotations

import click


@click.command(short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      source <(mhnos-runtime completion bash)
      mhnos-runtime completion zsh > ~/.zfunc/_mhnos-runtime
      mhnos-runtime completion fish | source
    """
    from click.shell_completion import get_completion_class

    from mhnos_runtime.cli.main import PROGRAM, cli

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choices are click's own
    print(found(cli, {}, PROGRAM, "_MHNOS_RUNTIME_COMPLETE").source())
