"""`token`: the secret that clients of the runtime on this machine need, and tokens that may do less."""

from __future__ import annotations

import time
from typing import Any, TypeVar
from urllib.parse import quote

import click

from mhnos_runtime.cli import say
from mhnos_runtime.cli.places import FilePath
from mhnos_runtime.cli.target import Duration, Handle, open_direct, target_options
from mhnos_runtime.errors import MhnosError

T = TypeVar("T")

_TOKENS = "/v1/tokens"
#: As the server has them, which is not loaded here.
SCOPES = ("control", "view", "files", "preview", "metrics")


@click.group(
    invoke_without_command=True, short_help="Show or replace the token that clients need; make lesser ones."
)
@click.option("--rotate", is_flag=True, help="Make a new one; the old one stops working at once.")
@click.option("--state-dir", metavar="DIR", type=click.Path(), help="The server's state directory.")
@click.option("--json", "json_", is_flag=True, help="As JSON, with the file's path.")
@click.pass_context
def token(context: click.Context, rotate: bool, state_dir: str | None, json_: bool) -> None:
    """Print the token; a first one is made where there is none.

    Whoever has it can run programs here: give it to nobody, and rotate it when somebody may have seen it.
    To others, give a token of their own, that may do less and can be revoked: `token create`.

    \b
    Examples:
      mhnos-runtime token
      mhnos-runtime token --rotate
      mhnos-runtime token create --name ann --scope view --expires 7d
      curl -H "Authorization: Bearer $(mhnos-runtime token)" http://127.0.0.1:18790/
    """
    if context.invoked_subcommand is not None:
        if rotate or state_dir or json_:
            raise click.UsageError("--rotate, --state-dir and --json stand without a further verb")
        return
    for option in ("url", "token_file"):
        if context.find_root().params.get(option) is not None:
            raise click.UsageError(f"--{option.replace('_', '-')} stands with a further verb")
    from mhnos_runtime.config import load
    from mhnos_runtime.server.auth.token import ensure_token, read_token, rotate_token, token_path

    folder = load({"state_dir": state_dir} if state_dir else {})[0].state_dir
    if rotate:
        rotate_token(folder)
    else:
        ensure_token(folder)
    secret = read_token(folder)
    if json_:
        say.as_json({"token": secret, "file": str(token_path(folder))})
    else:
        print(secret)


def _pids(url: str | None, token_file: str | None, handles: tuple[int | str, ...]) -> list[int]:
    """A grant is for processes by their numbers: another process may have the name tomorrow."""
    from mhnos_runtime.cli.processes import found

    if all(isinstance(handle, int) for handle in handles):
        return [int(handle) for handle in handles]
    with open_direct(url, token_file) as runtime:
        return [found(runtime, handle).pid for handle in handles]


@token.command()
@click.option("--name", required=True, help="Whose it is; unique.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    type=click.Choice(SCOPES),
    help="What it may do; may be repeated. control has view in it.",
)
@click.option(
    "--process",
    "processes",
    multiple=True,
    type=Handle(),
    help="Only this process, until the runtime ends; may be repeated.",
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    type=FilePath(folders=True),
    metavar="PATH",
    help="Only this folder of the workspace; may be repeated.",
)
@click.option("--read-only", is_flag=True, help="Files may be read and not changed.")
@click.option("--expires", "lifetime_ms", type=Duration(), help="How long it lasts, such as 12h or 7d.")
@click.option("--json", "json_", is_flag=True, help="As JSON, with every field.")
@target_options
def create(
    url: str | None,
    token_file: str | None,
    name: str,
    scopes: tuple[str, ...],
    processes: tuple[int | str, ...],
    paths: tuple[str, ...],
    read_only: bool,
    lifetime_ms: int | None,
    json_: bool,
) -> None:
    """Make a token that may do less than the operator's, and show it: once, since only its digest is kept.

    \b
    Examples:
      mhnos-runtime token create --name ann --scope view --expires 7d
      mhnos-runtime token create --name demo --scope view --process 1000
      mhnos-runtime token create --name docs --scope files --path /docs --read-only
    """
    body: dict[str, Any] = {"name": name, "scopes": list(dict.fromkeys(scopes))}
    body |= {"processes": _pids(url, token_file, processes)} if processes else {}
    body |= {"paths": list(paths)} if paths else {}
    body |= {"readOnly": True} if read_only else {}
    body |= {} if lifetime_ms is None else {"lifetimeMs": lifetime_ms}
    made = _ask(url, token_file, "POST", _TOKENS, body)
    secret = _part(made, "token", str)
    if json_:
        say.as_json(made)
    else:
        print(say.printable(secret))


@token.command("list")
@click.option("--json", "json_", is_flag=True, help="As JSON, with every field.")
@target_options
def list_(url: str | None, token_file: str | None, json_: bool) -> None:
    """List the tokens that were created and are in force."""
    rows = _part(_ask(url, token_file, "GET", _TOKENS), "tokens", list)
    if json_:
        say.as_json(rows)
    else:
        head = ("NAME", "SCOPES", "LIMITED TO", "EXPIRES", "LAST USED")
        say.table(head, [_cells(row, time.time()) for row in rows])


@token.command()
@click.argument("name")
@target_options
def revoke(url: str | None, token_file: str | None, name: str) -> None:
    """End a token at once, with the connections that it has open."""
    _ask(url, token_file, "DELETE", f"{_TOKENS}/{quote(name, safe='')}")


def _ask(url: str | None, token_file: str | None, method: str, path: str, body: object = None) -> Any:
    from mhnos_runtime.client.discovery import discover
    from mhnos_runtime.client.errors import RequestFailed
    from mhnos_runtime.client.http import ask

    try:
        return ask(discover(url, token_file), method, path, body)
    except RequestFailed as error:
        if error.code == "not-found" and path == _TOKENS:
            hint = "it is older than this command: upgrade it"
            raise RequestFailed("this runtime has no tokens for others", code=error.code, hint=hint) from None
        raise


def _part(answer: Any, name: str, kind: type[T]) -> T:
    """Of what a runtime answers. Raises MhnosError where something else has answered."""
    part = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(part, kind):
        raise MhnosError("what answered is no runtime", code="protocol-violation", hint="see --url")
    return part


def _cells(row: dict[str, Any], now_s: float) -> tuple[str, ...]:
    limits = [*(row["processes"] or ()), *(row["paths"] or ()), *(f":{port}" for port in row["ports"] or ())]
    limits += ["read-only"] if row.get("readOnly") else []
    expires, used = row["expires"], row["lastUsed"]
    return (
        row["name"],
        ",".join(row["scopes"]),
        " ".join(map(str, limits)) or "-",
        "never" if expires is None else f"in {say.duration(expires / 1000 - now_s)}",
        "never" if used is None else f"{say.duration(now_s - used / 1000)} ago",
    )
