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
    print(script(shell))


def script(shell: str) -> str:
    """Click's, but that no space comes behind a folder, whose content is to be completed next, and that bash
    takes --cwd=site, -e DEBUG=1 and :/src for one word each."""
    from click.shell_completion import get_completion_class

    from mhnos_runtime.cli.main import PROGRAM, cli

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choices are click's own
    source = found(cli, {}, PROGRAM, "_MHNOS_RUNTIME_COMPLETE").source()
    for place, more in _CHANGES.get(shell, ()):
        source = source.replace(place, more)
    return source


_ZSH_END = "    compadd -U -V unsorted -a completions\n    fi\n"
_ZSH_FOLDERS = "    if [ -n \"$folders\" ]; then\n        compadd -U -S '' -V unsorted -a folders\n    fi\n"

#: bash breaks words at = and : (COMP_WORDBREAKS), and replaces what is behind the last of these only. Which
#: pieces stand together is to be seen in the line.
_BASH_ASKS = 'response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD'
_BASH_JOINS = """local i line=$COMP_LINE rest words=() piece=${COMP_WORDS[COMP_CWORD]}
    for ((i = 0; i <= COMP_CWORD; i++)); do
        rest=${line#"${line%%[![:space:]]*}"}
        if ((i)) && [[ $rest == "$line" && $line ]]; then
            words[-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
        line=${rest:${#COMP_WORDS[i]}}
    done
    [[ $piece =~ ^[=:]+$ ]] && piece=
    local before=${words[-1]%"$piece"}
    """

#: What is replaced in click's scripts by what. fish puts no space behind a slash by itself.
_CHANGES = {
    "bash": [
        (
            _BASH_ASKS,
            _BASH_JOINS + 'response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1))',
        ),
        (
            "COMPREPLY+=($value)",
            'value=${value#"$before"}; COMPREPLY+=("$value"); [[ $value == */ ]] && compopt -o nospace',
        ),
    ],
    "zsh": [
        ("local -a completions\n", "local -a completions\n    local -a folders\n"),
        (
            'completions+=("$key")\n',
            'if [[ "$key" == */ ]]; then folders+=("$key"); else completions+=("$key"); fi\n',
        ),
        (_ZSH_END, _ZSH_END + _ZSH_FOLDERS),
    ],
}
