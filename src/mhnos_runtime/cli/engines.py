"""`engines`: the programs that the runtime brings itself. Knows the store; connects to no runtime."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mhnos_runtime.cli import say
from mhnos_runtime.cli.interrupts import as_keyboard_interrupts
from mhnos_runtime.engines import CATALOGUE, EngineStore

if TYPE_CHECKING:
    from mhnos_runtime.cli.engine_states import EngineState
    from mhnos_runtime.engines import Spec
    from mhnos_runtime.engines.npm import Progress

#: seconds between two lines of progress where they are not shown in one place
_LINE_SECONDS = 2.0

_NO_NPM = "pip install 'mhnos-runtime[node]' brings one; or install Node.js with npm on this machine"

_dir = click.option("--engines-dir", metavar="DIR", type=click.Path(), help="The folder of engines.")
_names = click.Choice(list(CATALOGUE))
_no_sandbox = click.option(
    "--no-sandbox",
    is_flag=True,
    help="As root: run npm as a user of its own outside of a sandbox, where none can be made.",
)


@click.group(short_help="Install, update and remove Node.js, workerd and OpenClaw.")
def engines() -> None:
    """Programs that some kinds need, at versions that this runtime was tested with, from npm, checked
    against hashes that come with the runtime. They are installed in a folder of their own (the setting
    engines_dir); nothing of the system is touched, and what is not complete is never used.

    \b
    Examples:
      mhnos-runtime engines list
      mhnos-runtime engines install workerd openclaw
      mhnos-runtime engines update
      mhnos-runtime engines remove openclaw
    """


@engines.command("list", short_help="Show which engines there are and which are installed.")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
@_dir
def list_(json_: bool, engines_dir: str | None) -> None:
    """Show each engine, what needs it, and the program that the runtime uses: one that was installed here, or
    for node one that it found, on this machine or in its own environment.

    STATE is installed; update, with the version that this runtime pins; found; missing; or unusable, with the
    reason.

    \b
    Examples:
      mhnos-runtime engines list
      mhnos-runtime engines list --json
    """
    from mhnos_runtime.cli.engine_states import engine_states

    states = engine_states(store_of(engines_dir))
    if json_:
        say.as_json([_row(state) for state in states])
        return
    say.table(
        ("ENGINE", "VERSION", "SIZE", "STATE", "NEEDED FOR", "PROGRAM"),
        [
            (
                each.name,
                each.version or "-",
                say.size(each.size_bytes),
                each.state + (f" to {each.pinned}" if each.state == "update" else ""),
                each.needed_for,
                each.why_not or each.program,
            )
            for each in states
        ],
    )


def _row(state: EngineState) -> dict[str, Any]:
    return {
        "name": state.name,
        "state": state.state,
        "version": state.version,
        "pinned": state.pinned,
        "sizeBytes": state.size_bytes,
        "folder": state.folder,
        "program": state.program,
        "neededFor": state.needed_for,
        "whyNot": state.why_not,
    }


@engines.command(short_help="Install engines.")
@click.argument("names", metavar="NAME...", type=_names, nargs=-1, required=True)
@click.option("--needed", is_flag=True, help="Leave node out where processes can use one that is there.")
@_no_sandbox
@_dir
def install(names: Sequence[str], needed: bool, no_sandbox: bool, engines_dir: str | None) -> None:
    """Install engines: node, workerd, openclaw. What is installed already is left as it is. With openclaw
    comes node, unless this machine has a Node.js that is new enough for it.

    Ctrl-C is safe at any time; what was downloaded is kept for the next attempt. Where root installs, npm
    runs as a user of its own in a sandbox, and what it brought is checked and becomes root's.

    \b
    Examples:
      mhnos-runtime engines install workerd
      mhnos-runtime engines install node workerd openclaw
    """
    _bring(store_of(engines_dir), names, needed, not no_sandbox)


@engines.command(short_help="Bring installed engines to the versions that this runtime pins.")
@click.argument("names", metavar="[NAME...]", type=_names, nargs=-1)
@_no_sandbox
@_dir
def update(names: Sequence[str], no_sandbox: bool, engines_dir: str | None) -> None:
    """Bring engines to the versions that this runtime pins: the named ones, else all that are installed.
    Processes that run go on with the version that they were started with.

    \b
    Examples:
      mhnos-runtime engines update
      mhnos-runtime engines update workerd
    """
    store = store_of(engines_dir)
    chosen = [name for name in names or CATALOGUE if store.find(name) is not None]
    for name in names:
        if name not in chosen:
            raise _not_installed(name)
    if not chosen:
        print("no engine is installed")
    _bring(store, chosen, sandbox=not no_sandbox)


@engines.command(short_help="Remove engines.")
@click.argument("names", metavar="NAME...", type=_names, nargs=-1, required=True)
@_dir
def remove(names: Sequence[str], engines_dir: str | None) -> None:
    """Remove engines, all versions of them, unless a process is using them.

    \b
    Examples:
      mhnos-runtime engines remove openclaw
    """
    from mhnos_runtime.engines.change import Change

    store = store_of(engines_dir)
    with Change(store) as change:
        for name in dict.fromkeys(names):
            print(f"{name} {'removed' if change.remove(name) else 'is not installed'}")


def store_of(engines_dir: str | Path | None = None) -> EngineStore:
    """The store in the folder that is given, else in the one of the settings. Raises ConfigError."""
    from mhnos_runtime.config import load

    return EngineStore(load({"engines_dir": engines_dir} if engines_dir else {})[0].engines_dir)


def _not_installed(name: str) -> Exception:
    from mhnos_runtime.engines import missing

    return missing(name)


def _bring(store: EngineStore, names: Sequence[str], needed: bool = False, sandbox: bool = True) -> None:
    """Install what is not current of these, and what they need in turn. needed: as in `install`. sandbox:
    whether root's npm has to be in one."""
    from mhnos_runtime.cli.confined import confined
    from mhnos_runtime.cli.node import find_node, find_npm
    from mhnos_runtime.engines.change import Change
    from mhnos_runtime.errors import InstallFailed

    wanted = _with_node(store, names, needed)
    absent = [name for name in wanted if not _current(store, name)]
    for name in wanted:
        if name not in absent:
            print(f"{name} {store.catalogue[name].version} is installed")
    if not absent:
        return
    with _interruptible(), confined(sandbox) as whom, Change(store, whom) as change:
        for name in sorted(absent, key=list(store.catalogue).index):
            range_ = store.catalogue[name].node_range
            with _Shown(store.catalogue[name], "starting npm") as shown:
                node = find_node(None, store, range_)[0] if range_ else ""
                npm, why_not = find_npm(node)
                if not npm:
                    raise InstallFailed(why_not, code="npm-missing", hint=_NO_NPM)
                engine = change.install(name, npm, node, shown.progress)
            print(f"{name} {engine.version} installed in {shown.took_s:.0f} s, {say.size(engine.size_bytes)}")


def _with_node(store: EngineStore, names: Sequence[str], needed: bool) -> list[str]:
    """The names, with node where one of them needs it and there is none; where node is wanted as far as it is
    needed, without it if there is one."""
    from mhnos_runtime.cli.node import find_node, reader

    ranges = [range_ for name in names if (range_ := store.catalogue[name].node_range)]
    optional = needed and "node" in names
    absent = [name for name in names if not _current(store, name) and not (optional and name == "node")]
    # Said before the first program is started: that takes its time on a busy machine.
    said = bool(absent) and (bool(ranges) or optional)
    with _Shown(store.catalogue[absent[0]], "looking for Node.js") if said else nullcontext():
        wanted = dict.fromkeys(names)
        if optional and find_node(reader(), store)[0]:
            del wanted["node"]
        if not all(find_node(reader(), store, range_)[0] for range_ in ranges):
            wanted["node"] = None
    return list(wanted)


def _current(store: EngineStore, name: str) -> bool:
    found = store.find(name)
    return found is not None and store.is_current(found)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end an installation as Ctrl-C does, with everything put away."""
    try:
        with as_keyboard_interrupts():
            yield
    except KeyboardInterrupt:
        say.error("interrupted", "what was downloaded is kept: run the same again to go on")
        raise


class _Shown:
    """How far an installation is, on stderr: on a terminal one line that changes, elsewhere a line now and
    then."""

    def __init__(self, spec: Spec, first: str) -> None:
        self._title = f"{spec.name} {spec.version}"
        self._first = first
        self._line_at = 0.0
        self._on_terminal = sys.stderr.isatty()
        self.took_s = 0.0

    def __enter__(self) -> _Shown:
        self._began = time.monotonic()
        self._show(self._first)
        return self

    def __exit__(self, *_error: object) -> None:
        self.took_s = time.monotonic() - self._began
        if self._on_terminal:
            self._print("\r\x1b[K")

    def progress(self, now: Progress) -> None:
        if now.packages >= now.total:
            detail = "unpacking and trying it"
        else:
            detail = f"{now.packages} of {now.total} packages"
        self._show(f"{detail}, {say.size(now.written_bytes)} written, {now.seconds:.0f} s")

    def _show(self, detail: str) -> None:
        if self._on_terminal:
            self._print(f"\r\x1b[K{self._title}: {detail}")
        elif time.monotonic() - self._line_at >= _LINE_SECONDS:
            self._line_at = time.monotonic()
            self._print(f"{self._title}: {detail}\n")

    @staticmethod
    def _print(text: str) -> None:
        """Progress whose reader has gone does not stop the work."""
        with suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)
