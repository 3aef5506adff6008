"""`token`: the secret that clients of the runtime on this machine need."""

from __future__ import annotations

import click

from mhnos_runtime.cli import say


@click.command(short_help="Show or replace the token that clients need.")
@click.option("--rotate", is_flag=True, help="Make a new one; the old one stops working at once.")
@click.option("--state-dir", metavar="DIR", type=click.Path(), help="The server's state directory.")
@click.option("--json", "json_", is_flag=True, help="As JSON, with the file's path.")
def token(rotate: bool, state_dir: str | None, json_: bool) -> None:
    """Print the token; a first one is made where there is none.

    Whoever has it can run programs here: give it to nobody, and rotate it when somebody may have seen it.

    \b
    Examples:
      mhnos-runtime token
      mhnos-runtime token --rotate
      curl -H "Authorization: Bearer $(mhnos-runtime token)" http://127.0.0.1:18790/
    """
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
