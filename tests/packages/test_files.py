"""What the files of packaging/ say of each other, of the settings and of the pages. Starts nothing."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
from types import ModuleType

from mhnos_runtime.config import SETTINGS
from tests.packages.wheel import ROOT

DOCKER = ROOT / "packaging" / "docker"
SYSTEMD = ROOT / "packaging" / "systemd"
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "how-to" / "docker.md").read_text(encoding="utf-8")
UNIT = (SYSTEMD / "mhnos-runtime.service").read_text(encoding="utf-8")
#: Fixed inside a container, or not of one: a whole table is no variable, and nobody is root there.
ELSEWHERE = {"host", "port", "workspace", "state_dir", "user", "allow_root", "auth", "engines_dir"}


def profile_maker() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("seccomp_profile", str(ROOT / "tools" / "seccomp-profile"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_profile_is_what_the_tool_makes_of_the_default() -> None:
    maker = profile_maker()
    text = (DOCKER / "seccomp.json").read_text(encoding="utf-8")
    shipped = json.loads(text)
    added = [rule for rule in shipped["syscalls"] if rule.get("comment", "").startswith("mhnos: ")]
    default = {**shipped, "syscalls": [rule for rule in shipped["syscalls"] if rule not in added]}
    assert [name for rule in added for name in rule["names"]] == list(maker.ADDED)
    assert json.dumps(maker.profile(default), indent=1) + "\n" == text
    assert default["defaultAction"] == "SCMP_ACT_ERRNO"
    row = next(line for line in PAGE.splitlines() if line.startswith("| `seccomp=seccomp.json`"))
    assert re.findall(r"`([a-z_0-9]+)`", row.split("|")[3]) == list(maker.ADDED)


def test_compose_passes_every_setting_on() -> None:
    passed = set(re.findall(r"^    (MHNOS_[A-Z_]+):(?: .*)?$", COMPOSE, re.MULTILINE))
    assert passed == {setting.env for setting in SETTINGS if setting.name not in ELSEWHERE}


def test_the_image_s_user_is_compose_s() -> None:
    assert "USER 9999:9999" in DOCKERFILE
    assert 'user: "9999:9999"' in COMPOSE


#: A name alone may mean other bytes tomorrow; the tag beside the digest is for people.
PINNED = re.compile(r"[a-z]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}")


def test_images_of_others_are_pinned_by_digest() -> None:
    """The base image and Caddy were whatever their tags meant on the day of the build."""
    base = re.search(r"^ARG BASE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    assert PINNED.fullmatch(base[1])
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert f"BASE: ${{MHNOS_BASE:-{base[1]}}}\n" in COMPOSE
    for file in DOCKER.glob("compose*.yaml"):
        images = re.findall(r"^ +image: \$\{MHNOS_[A-Z_]+:-(.*)\}$", file.read_text(), re.MULTILINE)
        own = [image for image in images if image.startswith("mhnos-runtime")]
        assert all(PINNED.fullmatch(image) for image in images if image not in own), images
        assert len(images) == len(re.findall(r"^ +image:", file.read_text(), re.MULTILINE))


def test_the_image_is_built_from_what_the_context_has() -> None:
    allowed = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for line in copied for name in line.split()} == allowed


def test_the_options_of_docker_run_are_those_of_compose() -> None:
    for option in ("no-new-privileges:true", "systempaths=unconfined", "apparmor=unconfined"):
        assert f"- {option}\n" in COMPOSE
        assert f"--security-opt {option}" in PAGE
    assert "size=256m,mode=1777" in COMPOSE
    assert "size=256m,mode=1777" in PAGE


def test_the_unit_and_its_command_agree_on_the_folders() -> None:
    command = (SYSTEMD / "mhnos-runtime").read_text(encoding="utf-8")
    for name in re.findall(r"^Environment=(MHNOS_(?:STATE_DIR|WORKSPACE|CONFIG))=(.*)$", UNIT, re.MULTILINE):
        path = name[1].replace("%S", "/var/lib")
        assert path in command
    variables = {setting.env for setting in SETTINGS} | {"MHNOS_CONFIG"}
    named = re.findall(r"\b(MHNOS_[A-Z_]+)=", UNIT + (SYSTEMD / "environment").read_text(encoding="utf-8"))
    assert set(named) <= variables


def test_what_the_unit_is_said_to_do_is_in_it() -> None:
    page = (ROOT / "docs" / "how-to" / "systemd.md").read_text(encoding="utf-8")
    section = page.partition("## What the unit does")[2].partition("\n## ")[0]
    for line in re.findall(r"`([A-Z][A-Za-z]+=[a-z0-9 ]+)`", section):
        assert f"\n{line}\n" in UNIT, line
