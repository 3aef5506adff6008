"""The sandbox in a container: what Docker's profile refuses, what is added to it, and who gets out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.packages.compose import FOLDER, Project
from tests.packages.engine import IMAGE, Engine
from tests.packages.wheel import ROOT

pytestmark = pytest.mark.timeout(900)

#: What compose.yaml gives, for `docker run`.
HARDENED = (
    *("--read-only", "--tmpfs=/tmp:size=256m,mode=1777", "--cap-drop=ALL", "--user=9999:9999"),
    *("--security-opt=no-new-privileges:true", "--security-opt=systempaths=unconfined"),
    "--security-opt=apparmor=unconfined",
)


def refusal(engine: Engine, image: str, *options: str) -> str:
    done = engine.call("run", "--rm", *HARDENED, *options, image, "serve")
    assert done.returncode != 0
    return done.stderr


def test_strict_is_refused_with_docker_s_own_profile(engine: Engine, image: str) -> None:
    said = refusal(engine, image)
    assert "sandbox is strict by default, which this machine cannot give" in said
    assert "MHNOS_SANDBOX=relaxed" in said


@pytest.mark.parametrize(
    "call", ["clone", "unshare", "setns", "mount", "umount2", "pivot_root", "sethostname"]
)
def test_every_addition_to_the_profile_is_needed(
    engine: Engine, image: str, tmp_path: Path, call: str
) -> None:
    profile = json.loads((FOLDER / "seccomp.json").read_text())
    added = [rule for rule in profile["syscalls"] if rule.get("comment", "").startswith("mhnos: ")]
    profile["syscalls"] = [
        rule for rule in profile["syscalls"] if rule not in added or rule["names"] != [call]
    ]
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    option = f"--security-opt=seccomp={tmp_path}/profile.json"
    if call != "setns":
        assert "which this machine cannot give" in refusal(engine, image, option)
        return
    # Only a start joins namespaces.
    start = "mhnos-runtime serve & mhnos-runtime health --wait 20; mhnos-runtime run shell true"
    done = engine.call("run", "--rm", *HARDENED, option, "--entrypoint=sh", image, "-c", start)
    assert done.returncode != 0
    assert "could not be started (namespaces: Operation not permitted)" in done.stderr


#: What the sandbox's own tests need beside the image, and how compose starts them in the runtime's place.
TESTS = """services:
  runtime:
    image: {image}
    restart: "no"
    entrypoint: [/tests/venv/bin/python, -m, pytest, -q, -p, "no:cacheprovider"]
    working_dir: /tests
    sysctls: [net.ipv6.conf.all.disable_ipv6=0]
    volumes:
      - {root}/src:/tests/src:ro
      - {root}/tests:/tests/tests:ro
      - {root}/pyproject.toml:/tests/pyproject.toml:ro
"""


def with_tests(engine: Engine, image: str) -> str:
    pip = "/tests/venv/bin/python -m pip install --quiet --no-deps --require-hashes --no-build-isolation"
    # What builds the one dependency without a wheel comes first.
    steps = [f"{pip} -r /tests/requirements/{name}.txt" for name in ("build", "runtime", "dev")]
    # Not by PYTHONPATH, which some tests set for the runtime that they start.
    path = "import sysconfig as s; open(s.get_path('purelib') + '/source.pth', 'w').write('/tests/src')"
    steps.append(f'/tests/venv/bin/python -c "{path}"')
    lines = [f"FROM {image}", "USER 0:0", "COPY requirements /tests/requirements"]
    lines += [f"RUN {' && '.join(['python3 -m venv /tests/venv', *steps])}", "USER 9999:9999"]
    return engine.build_from(lines, f"{IMAGE}:tests")


def test_a_hostile_process_meets_the_same_escape_suite(engine: Engine, image: str, tmp_path: Path) -> None:
    """The sandbox's own tests, in the container that compose makes."""
    override = tmp_path / "tests.yaml"
    override.write_text(TESTS.format(image=with_tests(engine, image), root=ROOT))
    with Project(engine, "mhnos-escape", override) as project:
        done = project.call(
            "run", "--rm", "-T", "runtime", "tests/sandbox/test_escape.py", "-k", "strict", timeout=600
        )
    closing = re.search(r"^(\d+) passed(?:, (\d+) deselected)? in", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout[-6000:]
    assert closing is not None, done.stdout[-2000:]
    assert int(closing[1]) > 100
