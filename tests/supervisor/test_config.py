"""What a supervisor is started with travels as JSON."""

from __future__ import annotations

import json

from mhnos_runtime.supervisor import plain
from mhnos_runtime.supervisor.config import Config
from tests.supervisor.test_handover import CONFIG


def test_it_comes_back_as_it_was() -> None:
    assert plain.decode(Config, json.loads(json.dumps(plain.encode(CONFIG)))) == CONFIG
