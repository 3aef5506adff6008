"""What the installed version says before it takes over, with the real program that is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime import config
from mhnos_runtime.config.reload import bring
from mhnos_runtime.supervisor import check as module
from mhnos_runtime.supervisor import child, handover
from mhnos_runtime.supervisor.check import EXPOSED, Check
from mhnos_runtime.supervisor.log import Log


class Asked:
    """A check, and what the log says after it."""

    def __init__(self, home: Path) -> None:
        self.file = home / "config.toml"
        self.file.write_text("")
        env = {"HOME": str(home), "MHNOS_STATE_DIR": str(home), "MHNOS_CONFIG": str(self.file)}
        self.settings = config.load({}, env)[0].to_json()
        self.check = Check(Log(True))

    def __call__(self) -> str | None:
        self.check.start("", self.settings)
        _, status = os.waitpid(self.check.os_pid, 0)
        try:
            return self.check.ended(status)
        finally:
            assert self.check.os_pid == 0


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    yield Asked(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_nothing_new(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked() == asked.settings
    assert said(capsys) == []


def test_what_has_changed_is_told_one_by_one(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.file.write_text('max_processes = 7\nallow_host = ["box.example"]\n')
    bring(tmp_path, {"MHNOS_ALLOW_ORIGIN": "https://desk.example"})
    after = config.Settings.from_json(asked() or "")
    assert (after.allow_host, after.allow_origin) == (("box.example",), ("https://desk.example",))
    assert after.max_processes == 50
    lines = [(line["level"], line["msg"], line["setting"], line["old"], line["new"]) for line in said(capsys)]
    assert lines == [
        ("warning", "a changed setting waits for the next start", "max_processes", "50", "7"),
        ("info", "a setting has changed", "allow_origin", "none", "https://desk.example"),
        ("info", "a setting has changed", "allow_host", "none", "box.example"),
    ]


def test_a_mistake_in_the_configuration_stops_it(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the next start would be the first to find it, when nobody expects it."""
    asked.file.write_text("max_proceses = 7\n")
    assert asked() is None
    (line,) = said(capsys)
    assert line["msg"] == "not reloaded: the settings cannot be used; all runs on"
    assert "did you mean max_processes?" in line["problem"]


def test_another_version_changes_no_setting(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.file.write_text('allow_host = ["box.example"]\n')
    monkeypatch.setattr(handover, "STATE_VERSION", 99)
    assert asked() is None
    assert "does not understand" in said(capsys)[0]["msg"]


def test_settings_that_no_server_could_be_told_are_refused(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "MAX_SETTINGS", 100)
    assert asked() == asked.settings
    asked.file.write_text('allow_host = ["box.example"]\n')
    assert asked() is None
    assert [line["msg"] for line in said(capsys)][
        -1
    ] == "not reloaded: the settings are too long; all runs on"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (EXPOSED, None, "not reloaded: processes could change the installed version; all runs on"),
        (1, None, "not reloaded: the installed version does not understand this one's state; all runs on"),
        (0, '{"settings": "', "not reloaded: the installed version does not understand"),
        (0, "", "not reloaded: the installed version does not understand"),
    ],
)
def test_what_a_child_leaves_half_done(
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    text: str | None,
    expected: str,
) -> None:
    written: list[int] = []

    def start(_argv: list[str], inherited: list[int]) -> int:
        written.extend(inherited)
        if text is not None:
            os.ftruncate(inherited[0], 0)
            os.pwrite(inherited[0], text.encode(), 0)
        return 1

    monkeypatch.setattr(child, "start_plain", start)
    asked.check.start("", asked.settings)
    assert not os.get_inheritable(written[0])
    assert asked.check.ended(code << 8) is None
    (line,) = said(capsys)
    assert line["msg"].startswith(expected)


def test_a_child_that_cannot_be_started_leaves_nothing(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError

    monkeypatch.setattr(child, "start_plain", fail)
    with pytest.raises(OSError):  # noqa: PT011
        asked.check.start("", asked.settings)


def test_an_answer_of_a_version_that_reads_no_settings(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves what it was given."""
    monkeypatch.setattr(child, "start_plain", lambda *_: 1)
    asked.check.start("", asked.settings)
    assert asked.check.ended(0) == asked.settings
