"""OpenClaw's kinds: its command words, what its gateway begins with, what its commands are told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mhnos_runtime import config
from mhnos_runtime.errors import InvalidRequest, Refused
from mhnos_runtime.process import openclaw
from mhnos_runtime.process.facts import UNKNOWN, Secrets
from mhnos_runtime.process.kind import Interpreted
from mhnos_runtime.process.openclaw import COMMAND, CONFIG, OPENCLAW
from mhnos_runtime.process.ready import Port
from tests.process.context import Context


@pytest.mark.parametrize(
    ("command", "args", "kept", "port"),
    [
        ("", (), (), 0),
        ("start", (), (), 0),
        ("gateway", (), (), 0),
        ("gateway", ("run", "--verbose"), ("--verbose",), 0),
        ("gateway", ("start", "--port", "8080"), (), 8080),
        ("start", ("--port=8080", "--verbose"), ("--verbose",), 8080),
    ],
)
def test_words_that_start_the_gateway(
    command: str, args: tuple[str, ...], kept: tuple[str, ...], port: int
) -> None:
    meaning = Interpreted(OPENCLAW, kept, {"gateway": port} if port else {})
    assert openclaw.interpret(command, args) == meaning


@pytest.mark.parametrize(
    ("command", "args"),
    [("status", ()), ("config", ("get", "x")), ("gateway", ("health",)), ("--version", ())],
)
def test_words_that_do_not(command: str, args: tuple[str, ...]) -> None:
    assert openclaw.interpret(command, args) == Interpreted(COMMAND, args)


@pytest.mark.parametrize("flag", ["--bind", "--auth", "--token", "--password-file", "--tailscale", "--dev"])
@pytest.mark.parametrize("command", ["", "start", "gateway"])
def test_flags_that_are_the_runtimes_own(command: str, flag: str) -> None:
    """Another value would open the gateway to others."""
    for args in ((flag, "x"), (f"{flag}=x",), ("--verbose", flag)):
        with pytest.raises(InvalidRequest, match=f"{flag} is set by the runtime"):
            openclaw.interpret(command, args)


@pytest.mark.parametrize("port", ["", "x", "80", "65536", "-1"])
def test_ports_that_it_cannot_have(port: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a number from 1024 to 65535"):
        openclaw.interpret("start", ("--port", port))
    with pytest.raises(InvalidRequest, match="expected a number"):
        openclaw.interpret("start", ("--port",))


def test_its_first_config() -> None:
    assert json.loads(openclaw.config("/workspace")) == {
        "gateway": {"mode": "local"},
        "logging": {"file": "/workspace/.openclaw/logs/openclaw.log"},
    }


def test_openclaw_has_to_be_allowed(tmp_path: Path) -> None:
    settings, _ = config.load({"workspace": tmp_path}, {"HOME": str(tmp_path)})
    with pytest.raises(Refused, match="not enabled"):
        OPENCLAW.hooks.check_allowed(settings)
    OPENCLAW.hooks.check_allowed(replace(settings, allow_openclaw=True))
    assert OPENCLAW.hooks.interpret(OPENCLAW, "status", ()) == Interpreted(COMMAND, ())


def test_the_gateway_finds_a_config_and_keeps_its_own() -> None:
    context = Context()
    OPENCLAW.hooks.write_files(context)
    assert "/home/ws/.openclaw/logs" in context.files[CONFIG]
    context.files[CONFIG] = "its own"
    OPENCLAW.hooks.write_files(context)
    assert context.files[CONFIG] == "its own"
    other = Context()
    COMMAND.hooks.write_files(other)
    assert CONFIG not in other.files


def test_a_command_is_told_of_the_gateway_that_runs() -> None:
    running = msgspec.structs.replace(
        UNKNOWN, ports=(Port("gateway", 4000, "127.0.0.1"),), secrets=Secrets("secret")
    )
    told = {"OPENCLAW_GATEWAY_PORT": "4000", "OPENCLAW_GATEWAY_TOKEN": "secret"}
    assert COMMAND.hooks.environment(running) == told
    assert COMMAND.hooks.environment(None) == {}
    assert COMMAND.hooks.environment(UNKNOWN) == {}
    assert OPENCLAW.hooks.environment(running) == {}
