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
    """Where a verb lives (the attribute has its name, with _ for -); what the overview says of it, under
    which title."""

    module: str
    summary: str
    section: str = "Processes"


_FILES, _SERVER, _REST = "Files", "Server", "Other"


VERBS = {
    "run": Verb("run", "Start a process and stay with it."),
    "exec": Verb("exec", "Run a program in the sandbox of a process."),
    "ps": Verb("ps", "List processes."),
    "attach": Verb("attach", "Take a process's terminal over, or watch it."),
    "logs": Verb("logs", "Show what a process has written."),
    "search": Verb("search", "Find lines in what processes have written."),
    "write": Verb("write", "Type into a process."),
    "stop": Verb("stop", "End processes: SIGTERM, and SIGKILL after a grace."),
    "kill": Verb("kill", "Signal or end processes."),
    "wait": Verb("wait", "Wait until processes have ended; print their exit codes."),
    "rm": Verb("rm", "Remove ended processes, or files of the workspace."),
    "prune": Verb("prune", "Remove all ended processes with their output."),
    "rename": Verb("rename", "Give a process another name."),
    "inspect": Verb("inspect", "Show all that is known of processes, as JSON."),
    "port": Verb("port", "Show where a process can be reached."),
    "top": Verb("top", "Show what processes use, live."),
    "stats": Verb("stats", "Show what processes use, once."),
    "events": Verb("events", "Show starts, readiness and ends of processes as they happen."),
    "credentials": Verb("credentials", "Show the token of a process, such as OpenClaw's."),
    "ls": Verb("ls", "List files of the workspace.", _FILES),
    "cat": Verb("cat", "Print files of the workspace.", _FILES),
    "cp": Verb("cp", "Copy files into the workspace, out of it and in it.", _FILES),
    "mv": Verb("mv", "Move and rename files of the workspace.", _FILES),
    "mkdir": Verb("mkdir", "Make directories in the workspace.", _FILES),
    "edit": Verb("edit", "Edit a file of the workspace with the editor of this machine.", _FILES),
    "grep": Verb("grep", "Find files of the workspace by content and name.", _FILES),
    "watch": Verb("watch", "Show what changes in the workspace as it happens.", _FILES),
    "trash": Verb("trash", "List, restore and empty what was removed.", _FILES),
    "serve": Verb("serve", "Start the runtime and print how to connect.", _SERVER),
    "stop-server": Verb("stop_server", "Stop the runtime on this machine, with its processes.", _SERVER),
    "reload": Verb("reload", "Restart the runtime with the installed version; processes go on.", _SERVER),
    "health": Verb("health", "Ask the runtime on this machine whether it serves.", _SERVER),
    "check": Verb("check", "Try every request on a running runtime.", _SERVER),
    "token": Verb("token", "Show or replace the token that clients need; make lesser ones.", _SERVER),
    "config": Verb("config", "Show the settings in force and where each comes from.", _SERVER),
    "doctor": Verb("doctor", "Tell what this machine can enforce.", _SERVER),
    "engines": Verb("engines", "Install, update and remove Node.js, workerd and OpenClaw.", _SERVER),
    "template": Verb("template", "Print a workerd config to begin with.", _REST),
    "completion": Verb("completion", "Print the completion script for a shell.", _REST),
}

#: What other programs call it.
_HABITS = {
    "list": "ps",
    "find": "grep --files",
    "rg": "grep",
    "vi": "edit",
    "vim": "edit",
    "nano": "edit",
    "start": "run",
    "status": "health",
    "info": "doctor",
    "version": "--version",
    "help": "--help",
    "kill-server": "stop-server",
    "shutdown": "stop-server",
}

_EPILOG = """\b
Examples:
  mhnos-runtime serve ~/project          start the runtime on this machine, for this folder
  mhnos-runtime run -it shell            a terminal in the workspace
  mhnos-runtime run python app.py        run a script, see its output
  mhnos-runtime ps                       what runs
  mhnos-runtime attach web               go on where you left
  mhnos-runtime cp notes.txt :/docs/     a file into the workspace

\b
A process is named by its pid or by its name; a path of the workspace
has a colon before it where it could be one of this machine.
Address and token come from --url and --token-file, else from MHNOS_URL and
MHNOS_TOKEN, else from the runtime that serves on this machine."""


def _meant(word: str) -> str:
    """The verb, or option, that somebody may mean by another word; "" for none."""
    import difflib

    return _HABITS.get(word) or next(iter(difflib.get_close_matches(word, VERBS, 1)), "")


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a word that is no verb is told which one may be meant."""
        word = args[0]
        if word not in VERBS and (meant := _meant(word)):
            raise click.UsageError(f"No such verb: {word!r}. Did you mean {PROGRAM} {meant}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title in ("Processes", _FILES, _SERVER, _REST):
            with formatter.section(title):
                formatter.write_dl(
                    [(name, verb.summary) for name, verb in VERBS.items() if verb.section == title]
                )


@click.group(
    cls=Verbs,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
@click.option("--url", metavar="URL", help="Address of the runtime.")
@click.option("--token-file", metavar="FILE", type=click.Path(), help="File that holds the token.")
@click.pass_context
def cli(ctx: click.Context, url: str | None, token_file: str | None) -> None:
    """Real processes behind a WebSocket: start, watch, feed and stop them from here."""
    verb = ctx.invoked_subcommand or ""
    command = cli.get_command(ctx, verb)
    taken = _options(command)
    for name, value in (("url", url), ("token_file", token_file)):
        if value is not None and command is not None and name not in taken:
            raise click.UsageError(f"--{name.replace('_', '-')} says nothing to {verb}", ctx)


def _options(command: click.Command | None) -> set[str | None]:
    """Those of a verb, and of its further verbs."""
    further = command.commands.values() if isinstance(command, click.Group) else ()
    return {param.name for each in (command, *further) if each is not None for param in each.params}


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
        say.error(say.fault(error))  # a full disk, a terminal that has gone
        return exits.FAILED
    return result if isinstance(result, int) else exits.OK
