"""What these tests share: an engine, machines and bundles. What boots something takes minutes and runs when
asked for: `make test-packages` does; the wheel's are part of every run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.packages.engine import Engine
from tests.packages.machine import Machine, base_system
from tests.packages.wheel import ROOT, run

#: Where things are kept that take long to make and do not depend on the project.
CACHE = Path(os.environ.get("MHNOS_PACKAGES_CACHE", "/var/cache/mhnos-runtime-tests"))
FIGURE = "figure of a package"

BOOTING = bool(os.environ.get("MHNOS_TEST_PACKAGES"))
collect_ignore_glob = [] if BOOTING else ["test_docker*.py", "test_systemd.py"]


class ByFirstWord(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Whatever uses the engine is run by one worker, which starts it: test_docker*.py; and so on."""

    def _split_scope(self, nodeid: str) -> str:
        word = re.search(r"/test_([a-z]+)", nodeid)
        return word[1] if word else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFirstWord | None:
    return ByFirstWord(config, log) if BOOTING else None


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Has a line printed at the end of the run, whichever process the test runs in."""
    return lambda line: record_property(FIGURE, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    lines = [str(said) for report in reports for name, said in report.user_properties if name == FIGURE]
    if lines:
        terminalreporter.section("figures, for docs/performance.md")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(CACHE) as running:
        yield running


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    return engine.build()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What installs without a network, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    archive = folder / "bundle.tar.gz"
    # For the booted machine's Python, whichever runs the tests: make hands its own PYTHON on.
    python = "PYTHON=/usr/bin/python3"
    run(["env", python, ROOT / "packaging" / "systemd" / "bundle.sh", "--packages", archive], folder)
    run(["tar", "xzf", archive, "-C", folder], folder)
    (unpacked,) = folder.glob("mhnos-runtime-*")
    return unpacked


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted Debian with systemd as its PID 1, and nothing installed beside Python."""
    folder = tmp_path_factory.mktemp("machine")
    with Machine(base_system(CACHE, "machine"), folder) as booted:
        yield booted
