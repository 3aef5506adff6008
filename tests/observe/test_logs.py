"""Both forms of log lines, what they carry, and what they never do."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.observe import logs

TIME = r"\d\d:\d\d:\d\d\.\d{3}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def json_lines() -> Callable[[], list[dict[str, object]]]:
    stream = io.StringIO()
    logs.setup("debug", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    logs.setup("debug", "text", stream)
    return stream


# --- JSON


def test_json_line_with_everything(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    logs.get("server").bind(connection=3).bind(process=1000).info("process started", kind="node", ms=1.5)
    (line,) = json_lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["ts"]))
    assert list(line) == ["ts", "level", "msg", "logger", "connection", "process", "kind", "ms"]
    assert {**line, "ts": ""} == {
        "ts": "",
        "level": "info",
        "msg": "process started",
        "logger": "mhnos.server",
        "connection": 3,
        "process": 1000,
        "kind": "node",
        "ms": 1.5,
    }


def test_levels(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    log = logs.get()
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    logging.getLogger("library").critical("e")
    assert [line["level"] for line in json_lines()] == ["debug", "info", "warning", "error", "error"]


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level_setting(level: logs.Level, written: int) -> None:
    stream = io.StringIO()
    logs.setup(level, "json", stream)
    log = logs.get("x")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert len(stream.getvalue().splitlines()) == written


def test_exception_is_one_field_of_one_line(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        logs.get().exception("request failed", connection=1)
    (line,) = json_lines()
    assert line["msg"] == "request failed"
    assert str(line["exception"]).startswith("Traceback")
    assert str(line["exception"]).endswith("ValueError: broken\nin two lines")


def test_exception_outside_of_one(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    logs.get().exception("nothing is being handled")
    assert "exception" not in json_lines()[0]


def test_lines_of_libraries_take_the_same_form(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    logging.getLogger("aiohttp.server").warning("took %d ms for %s", 5, "/?token=secret")
    (line,) = json_lines()
    assert (line["logger"], line["msg"]) == ("aiohttp.server", "took 5 ms for /?token=***")


def test_percent_signs_are_text(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    logs.get().info("at 100 %s", path="%d")
    assert (json_lines()[0]["msg"], json_lines()[0]["path"]) == ("at 100 %s", "%d")


def test_values_of_other_types(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    """Of somebody's data only the size is written, whatever a careless caller passes."""
    logs.get().info(
        "x",
        data=b"secret",
        view=memoryview(b"ab"),
        nan=float("nan"),
        none=None,
        yes=True,
        error=OSError(2, "no"),
    )
    line = json_lines()[0]
    assert line["data"] == "<6 bytes>"
    assert line["view"] == "<2 bytes>"
    assert line["nan"] == "nan"
    assert line["none"] is None
    assert line["yes"] is True
    assert line["error"] == "[Errno 2] no"


def test_fields_never_replace_what_the_line_is_about(
    json_lines: Callable[[], list[dict[str, object]]],
) -> None:
    logs.get().info("x", ts=1, level=2, msg=3, logger=4, exception=5)
    line = json_lines()[0]
    assert (line["level"], line["msg"]) == ("info", "x")
    assert (line["ts_"], line["level_"], line["msg_"], line["logger_"]) == (1, 2, 3, 4)


def test_long_texts_are_cut(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    logs.get().info("x" * 100_000, path="y" * 100_000)
    assert len(json.dumps(json_lines())) < 5000


def test_binding_leaves_the_original_as_it_is(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    log = logs.get()
    log.bind(connection=1).info("a")
    log.info("b")
    assert ["connection" in line for line in json_lines()] == [True, False]


def test_tokens_are_taken_out_wherever_they_are(json_lines: Callable[[], list[dict[str, object]]]) -> None:
    try:
        raise ValueError("GET /?token=secret HTTP/1.1")
    except ValueError:
        logs.get().exception(
            "bad /?token=secret", url="ws://h/?token=secret", protocols=["mhnos.token.secret"]
        )
    assert "secret" not in json.dumps(json_lines()).replace('raise ValueError(\\"GET /?token=***', "")


# --- text


def test_text_line(text: io.StringIO) -> None:
    logs.get("server").bind(process=1000, connection=3).info(
        "client left", path="/a b", kind="node", n=1, ok=True
    )
    assert re.fullmatch(
        TIME + r' info    client left connection=3 process=1000 path="/a b" kind=node n=1 ok=true\n',
        text.getvalue(),
    )


def test_text_exception_is_indented(text: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logs.get().exception("failed")
    lines = text.getvalue().splitlines()
    assert re.fullmatch(TIME + " error   failed", lines[0])
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: broken"


@given(st.text(max_size=50), st.text(max_size=50))
def test_nothing_in_a_line_acts_on_a_terminal_or_ends_the_line(message: str, value: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, message, None, None)
    record.mhnos_fields = {"value": value}
    line = logs.TextLines().format(record)
    assert line.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f]", line)
    line.encode()
    assert json.loads(logs.JsonLines().format(record))["level"] == "info"


def test_log_line_cannot_be_forged(text: io.StringIO) -> None:
    logs.get().info("refused", host="evil\n10:00:00.000 info    all is well", colour="\x1b[31mred")
    assert len(text.getvalue().splitlines()) == 1
    assert "\x1b" not in text.getvalue()


# --- the choice of form


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", Terminal(), False),
        ("auto", io.StringIO(), True),
        ("text", io.StringIO(), False),
        ("json", Terminal(), True),
    ],
)
def test_form(form: logs.Form, stream: io.StringIO, is_json: bool) -> None:
    logs.setup("info", form, stream)
    logs.get().info("x")
    assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colours_only_on_a_terminal_that_wants_them(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    logs.setup("info", "auto", stream)
    logs.get().error("x")
    assert ("\x1b[31merror" in stream.getvalue()) is coloured


def test_no_colours_in_a_file(text: io.StringIO) -> None:
    logs.get().error("x")
    assert "\x1b" not in text.getvalue()


def test_set_up_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.setup("info", "json", first)
    logs.setup("info", "json", second)
    logs.get().info("x")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_default_stream_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup()
    logs.get().info("x")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert '"msg": "x"' in captured.err
