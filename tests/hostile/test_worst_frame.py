"""No frame holds the event loop. `{"type":[1,1,...]}` of 9 MB stopped everybody for 5 s, and a spawn with
70 MB of empty arguments did, too."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(0)
def test_no_frame_that_a_search_finds_holds_the_loop(
    dice: random.Random, request: pytest.FixtureRequest
) -> None:
    seconds = request.config.getoption("--fuzz-seconds")
    command = [sys.executable, "-m", "tests.hostile.frames", str(seconds), str(dice.getrandbits(32))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
