"""The names of `mhnos_runtime.client`: all of them there, each brought when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mhnos_runtime import client


@pytest.mark.parametrize("name", client.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(client, name) is not None


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = client.nothing
    assert set(client._HOME_OF) == set(client.__all__)


def test_to_import_it_brings_no_network() -> None:
    """What it stands on takes longer to import than `--help` may take."""
    program = (
        "import sys, mhnos_runtime.client; sys.exit('aiohttp' in sys.modules or 'asyncio' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
