"""The command line: finds the verb, and turns what it raises into lines on stderr and an exit code.

Knows the verbs by name only: a verb's module is imported when it is used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from mhnos_runtime import __version__
from mhnos_runtime.cli import exits, say
from mhnos_runtime.errors import MhnosError

PROGRAM = "mhnos-runtime"


class Verb(NamedTuple):
    """Where a verb lives (the attribute has its name, with _ for -), and what the overview says of it."""

    module: str
    summary: str


VERBS = {
    "serve": Verb("serve", "Start the runtime and print how to connect."),
    "stop-server": Verb("stop_server", "Stop the runtime on this machine, with its processes."),
    "run": Verb("run", "Start a process and stay with it."),
    "ps": Verb("ps", "List processes."),
    "attach": Verb("attach", "Take a process's terminal over, or watch it."),
    "logs": Verb("logs", "Show what a process has written."),
    "search": Verb("search", "Find lines in what processes have written."),
    "write": Verb("write", "Type into a process."),
    "kill": Verb("kill", "Signal or end processes."),
    "stats": Verb("stats", "Show what processes use."),
    "reload": Verb("reload", "Restart the runtime with the installed version; processes go on."),
    "health": Verb("health", "Ask the runtime on this machine whether it serves."),
    "token": Verb("token", "Show or replace the token that clients need; make lesser ones."),
    "doctor": Verb("doctor", "Tell what this machine can enforce."),
    "engines": Verb("engines", "Install, update and remove Node.js, workerd and OpenClaw."),
    "credentials": Verb("credentials", "Show the token of a process, such as OpenClaw's."),
    "template": Verb("template", "Print a workerd config to begin with."),
    "config": Verb("config", "Show the settings in force and where each comes from."),
    "check": Verb("check", "Try every request on a running runtime."),
    "completion": Verb("completion", "Print the completion script for a shell."),
}

_EPILOG = """\b
Examples:
  mhnos-runtime serve ~/project          start the runtime on this machine, for this folder
  mhnos-runtime run -it shell            a terminal in the workspace
  mhnos-runtime run python app.py        run a script, see its output
  mhnos-runtime ps                       what runs
  mhnos-runtime attach 1000              go on where you left

\b
Address and token come from --url and --token-file, else from MHNOS_URL and
MHNOS_TOKEN, else from the runtime that serves on this machine."""


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is used, and for the overview none."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"mhnos_runtime.cli.{VERBS[cmd_name].module}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])


@click.group(
    cls=Verbs,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
def cli() -> None:
    """Real processes behind a WebSocket: start, watch, feed and stop them from here."""


def run(args: Sequence[str] | None = None) -> int:
    """Carry a command line out; returns its exit code."""
    try:
        result = cli.main(args, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return exits.INTERRUPTED
    except SystemExit as leaving:
        if not leaving.code:
            return exits.OK  # it has completed a word for a shell
        # Click turns a broken pipe into an exit with 1, whatever its caller wants of other errors.
        say.silence_stdout()
        return exits.READER_GONE
    except MhnosError as error:
        say.error(error.message, error.hint)
        return exits.FAILED
    except OSError as error:
        say.error(str(error))  # a full disk, a terminal that has gone
        return exits.FAILED
    return result if isinstance(result, int) else exits.OK
