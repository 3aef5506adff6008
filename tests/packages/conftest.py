"""What these tests share: machines and bundles. What boots something takes minutes and runs when asked for:
`make test-packages` does; the wheel's are part of every run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.machine import Machine, base_system
from tests.packages.wheel import ROOT, run

#: Where things are kept that take long to make and do not depend on the project.
CACHE = Path(os.environ.get("MHNOS_PACKAGES_CACHE", "/var/cache/mhnos-runtime-tests"))

collect_ignore = [] if os.environ.get("MHNOS_TEST_PACKAGES") else ["test_docker.py", "test_systemd.py"]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What installs without a network, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    archive = folder / "bundle.tar.gz"
    run([ROOT / "packaging" / "systemd" / "bundle.sh", "--packages", archive], folder)
    run(["tar", "xzf", archive, "-C", folder], folder)
    (unpacked,) = folder.glob("mhnos-runtime-*")
    return unpacked


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted Debian with systemd as its PID 1, and nothing installed beside Python."""
    folder = tmp_path_factory.mktemp("machine")
    with Machine(base_system(CACHE, "machine"), folder) as booted:
        yield booted
