"""What the words of a shell's start mean: a shell, a script, a command, or options."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from mhnos_runtime.errors import StartFailed
from mhnos_runtime.process import words

FOUND = {name: f"/usr/bin/{name}" for name in ("bash", "sh", "zsh")}


def argv(*given: str, found: Mapping[str, str] = FOUND, terminal: bool = False) -> tuple[str, ...]:
    command, *args = given or ("",)
    return words.argv(found.get, command, args, terminal=terminal)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ((), "/usr/bin/bash"),
        (("bash",), "/usr/bin/bash"),
        (("/bin/zsh",), "/usr/bin/zsh"),
        (("fish",), "/usr/bin/sh"),
    ],
)
def test_a_shell_alone_is_interactive_on_a_terminal(given: tuple[str, ...], made: str) -> None:
    assert argv(*given) == (made,)
    assert argv(*given, terminal=True) == (made, "-i")
    assert words.is_interactive((given or ("",))[0], ())


@pytest.mark.parametrize(
    ("given", "made"),
    [
        # One word is a script.
        (("echo hi; exit 3",), ("/usr/bin/bash", "-c", "echo hi; exit 3", "bash")),
        (("htop",), ("/usr/bin/bash", "-c", "htop", "bash")),
        # A command line that ends like a shell's path once started that shell.
        (("ls -l /bin/bash",), ("/usr/bin/bash", "-c", "ls -l /bin/bash", "bash")),
        (("cat</bin/sh",), ("/usr/bin/bash", "-c", "cat</bin/sh", "bash")),
        (("--", "ls | wc"), ("/usr/bin/bash", "-c", "ls | wc", "bash")),
        # Several are a command as typed: they once became $1 and so on of the first one.
        (("ls", "-la", "a b"), ("/usr/bin/bash", "-c", '"$@"', "bash", "ls", "-la", "a b")),
        (("--", "ls", "$x"), ("/usr/bin/bash", "-c", '"$@"', "bash", "ls", "$x")),
        (("npm", "--", "x"), ("/usr/bin/bash", "-c", '"$@"', "bash", "npm", "--", "x")),
        # Options are the shell's.
        (("-c", 'echo "$0 $1"', "a", "b"), ("/usr/bin/bash", "-c", 'echo "$0 $1"', "a", "b")),
        (("-lc", "env"), ("/usr/bin/bash", "-lc", "env")),
        (("-l",), ("/usr/bin/bash", "-l")),
        (("--",), ("/usr/bin/bash", "--")),
        (("", "-c", "env"), ("/usr/bin/bash", "-c", "env")),
        # So are those of a shell that is named.
        (("bash", "-lc", "env"), ("/usr/bin/bash", "-lc", "env")),
        (("/bin/zsh", "script"), ("/usr/bin/zsh", "script")),
        (("sh", "script", "x"), ("/usr/bin/sh", "script", "x")),
        # One that is not there is a command that is not found, and no other shell.
        (("fish", "-c", "env"), ("/usr/bin/bash", "-c", '"$@"', "bash", "fish", "-c", "env")),
    ],
)
def test_everything_else_is_not(given: tuple[str, ...], made: tuple[str, ...]) -> None:
    assert argv(*given) == argv(*given, terminal=True) == made
    assert not words.is_interactive(given[0], given[1:])


def test_a_machine_without_bash() -> None:
    assert argv("ls", "x", found={"sh": "/bin/sh"}) == ("/bin/sh", "-c", '"$@"', "sh", "ls", "x")
    assert argv(found={"sh": "/bin/sh"}) == ("/bin/sh",)
    with pytest.raises(StartFailed, match="no shell"):
        argv("ls", found={})


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_real_shells_run_words_as_typed(shell: str, tmp_path: Path) -> None:
    def run(*given: str) -> tuple[int, str]:
        made = argv(*given, found={shell: f"/bin/{shell}", "sh": "/bin/sh"})
        done = subprocess.run(made, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert run("printf", "[%s]", "a b", "$HOME", "*") == (0, "[a b][$HOME][*]")
    assert run("-c", 'echo "$0-$1"', "x", "y") == (0, "x-y\n")
    assert run("nosuch-program", "x")[0] == 127
    assert run("type", "cd")[0] == 0, "the shell's own commands are commands too"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (("bin/pip", "install", "x"), "bin/pip"),
        (("./run",), "./run"),
        (("--", "/a b/run", "x"), "/a b/run"),
        *((given, "") for given in ((), ("pip", "x"), ("./run; ls",), ("/bin/bash", "-l"), ("-c", "./run"))),
    ],
)
def test_the_program_that_words_start_by_its_path(given: tuple[str, ...], path: str) -> None:
    command, *args = given or ("",)
    assert words.program(command, args) == path
