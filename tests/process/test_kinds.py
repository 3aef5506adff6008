"""What kinds need beyond their data: their hooks, in a workplace of the test's own."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

import mhnos_runtime
from mhnos_runtime import config
from mhnos_runtime.errors import InvalidRequest, NotFound, Refused
from mhnos_runtime.process import kinds
from mhnos_runtime.process.facts import UNKNOWN, Secrets
from mhnos_runtime.process.kind import Hooks, Kind, Meant, Script
from mhnos_runtime.process.openclaw import COMMAND, CONFIG, OPENCLAW
from mhnos_runtime.process.ready import Port
from mhnos_runtime.process.workerd import SOCKET, WORKERD
from mhnos_runtime.wire.messages import WorkerOptions


@dataclass
class Place:
    """A workspace that is a dictionary."""

    files: dict[str, str] = field(default_factory=lambda: {"/app/hello.js": "", "/app/lib.txt": ""})
    home: str = "/home/ws"
    cwd: str = "/app"
    network: str = "host"
    dry: bool = False
    handed: list[str] = field(default_factory=list)

    def real(self, path: str, base: str | None = None) -> str:
        found = posixpath.join(self.cwd if base is None else base, path)
        if found not in self.files:
            raise NotFound(found)
        return found

    def normalise(self, path: str) -> str:
        return posixpath.join(self.cwd, path)

    def write_new(self, path: str, text: str) -> bool:
        return self.files.setdefault(path, text) is text

    def hand(self, text: str) -> int:
        self.handed.append(text)
        return 99 + len(self.handed)


HELLO = Script("hello.js", "/app/hello.js", None)


@pytest.mark.parametrize("kind", [kinds.NODE, kinds.PYTHON, kinds.SHELL])
def test_most_kinds_are_data_alone(kind: Kind) -> None:
    place = Place()
    assert type(kind.hooks) is Hooks
    assert kind.hooks.meant(kind, "x", ("a",)) == Meant(kind, ("a",))
    assert kind.hooks.program(HELLO, place) == ("hello.js", ())
    assert kind.hooks.program(replace(HELLO, command="/app/hello.js"), place) == ("/home/ws/app/hello.js", ())
    assert kind.hooks.environment(UNKNOWN) == {}
    kind.hooks.write_files(place)
    assert place.files == Place().files


def test_a_worker_runs_from_a_config_in_memory_or_where_it_is_to_be_kept() -> None:
    place = Place()
    assert WORKERD.hooks.program(HELLO, place) == ("/proc/self/fd/100", (SOCKET,))
    assert 'embed "/home/ws/app/hello.js"' in place.handed[0]
    kept = replace(HELLO, worker=WorkerOptions(keep="hello.capnp", modules=["lib.txt"]))
    assert WORKERD.hooks.program(kept, place) == ("hello.capnp", (SOCKET,))
    assert 'embed "hello.js"' in place.files["/app/hello.capnp"]
    with pytest.raises(InvalidRequest, match="is there already"):
        WORKERD.hooks.program(kept, place)
    with pytest.raises(NotFound):
        WORKERD.hooks.program(replace(HELLO, worker=WorkerOptions(modules=["no.txt"])), place)


def test_a_worker_reaches_nothing_where_its_network_does_not() -> None:
    place = Place(network="none")
    WORKERD.hooks.program(HELLO, place)
    assert "(allow = []," in place.handed[0]


@pytest.mark.parametrize(
    ("cwd", "told"), [("/app", "c.capnp"), ("/", "app/c.capnp"), ("/other", "/home/ws/app/c.capnp")]
)
def test_a_config_of_the_client_is_run_as_it_is(cwd: str, told: str) -> None:
    script = Script("/app/c.capnp", "/app/c.capnp", None)
    assert WORKERD.hooks.program(script, Place(cwd=cwd)) == (told, ())
    with pytest.raises(InvalidRequest, match="is a config"):
        WORKERD.hooks.program(replace(script, worker=WorkerOptions()), Place(cwd=cwd))


def test_openclaw_has_to_be_allowed(tmp_path: Path) -> None:
    settings, _ = config.load({"workspace": tmp_path}, {"HOME": str(tmp_path)})
    with pytest.raises(Refused, match="not enabled"):
        OPENCLAW.hooks.check_allowed(settings)
    OPENCLAW.hooks.check_allowed(replace(settings, allow_openclaw=True))
    assert OPENCLAW.hooks.meant(OPENCLAW, "status", ()) == Meant(COMMAND, ())


def test_the_gateway_finds_a_config_and_keeps_its_own() -> None:
    place = Place()
    OPENCLAW.hooks.write_files(place)
    assert "/home/ws/.openclaw/logs" in place.files[CONFIG]
    place.files[CONFIG] = "its own"
    OPENCLAW.hooks.write_files(place)
    assert place.files[CONFIG] == "its own"
    other = Place()
    COMMAND.hooks.write_files(other)
    assert CONFIG not in other.files


def test_a_command_is_told_of_the_gateway_that_runs() -> None:
    running = msgspec.structs.replace(
        UNKNOWN, ports=(Port("gateway", 4000, "127.0.0.1"),), secrets=Secrets("secret")
    )
    told = {"OPENCLAW_GATEWAY_PORT": "4000", "OPENCLAW_GATEWAY_TOKEN": "secret"}
    assert COMMAND.hooks.environment(running) == told
    assert COMMAND.hooks.environment(None) == {}
    assert OPENCLAW.hooks.environment(running) == {}


def test_what_openclaw_makes_anew_is_not_pulled() -> None:
    assert {"/.openclaw/cache"} == kinds.CACHES


@pytest.mark.parametrize("room", ["output", "sandbox", "supervisor"])
def test_below_the_kinds_nothing_asks_for_one_by_its_name(room: str) -> None:
    text = "".join(path.read_text() for path in (Path(mhnos_runtime.__file__).parent / room).glob("*.py"))
    assert not [kind.name for kind in (WORKERD, OPENCLAW) if kind.name in text.lower()]


def test_a_folder_in_a_place_of_everybodys_is_said_for_an_engine_that_is_used() -> None:
    assert kinds.OWN_FOLDERS == (("openclaw", "/tmp/openclaw-state-locks-{uid}"),)
    for kind in kinds.BUILT_IN:
        assert all(f"{{engine:{engine}}}" in kind.argv for engine, _path in kind.own_folders)
