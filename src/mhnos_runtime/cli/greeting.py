"""What `serve` tells people once it listens. Knows settings; neither starts nor changes anything."""

from __future__ import annotations

from pathlib import Path

from mhnos_runtime import __version__
from mhnos_runtime.cli import host
from mhnos_runtime.cli.local import command_for
from mhnos_runtime.config import Settings
from mhnos_runtime.server.auth.token import is_made_here, read_token

_PROMISES = {
    "strict": "each process sees the workspace and a read-only system, nothing else",
    "relaxed": "each process reaches the workspace and a read-only system, no other files",
    "none": "no sandbox: each process can reach all that its user can",
}


def greeting(settings: Settings, user: host.User, url: str, token_file: Path, *, private: bool) -> str:
    """The lines. private: whether they go to a terminal. Elsewhere they end in a log: a token that an
    operator keeps secret is never shown there, and the runtime's own only when a setting says so."""
    command = command_for(settings.state_dir)
    lines = [f"MHNOS runtime {__version__}", f"  listening  {url}", f"  workspace  {settings.workspace}"]
    if settings.auth == "none":
        lines.append("  token      none needed (--auth none)")
    elif private or (settings.show_token and is_made_here(settings.state_dir)):
        query = f"{url.replace('http', 'ws', 1)}/?token={read_token(settings.state_dir)}"
        lines += [f"  token      {token_file}", f"  connect    {query}"]
    else:
        lines.append(f"  token      {token_file} ({command} token shows it)")
    lines += [f"  sandbox    {_isolation(settings, user)}", f"  try        {command} run -it shell"]
    return "\n".join(lines)


def _isolation(settings: Settings, user: host.User) -> str:
    line = f"{settings.sandbox}: {_PROMISES[settings.sandbox]}"
    if settings.sandbox != "none":
        line += f", network {settings.network}"
    if user.name != "you":
        line += f", as {user.name}"
    if user.hand_over:
        line += f"\n             the workspace is handed to {user.name}"
    return line
