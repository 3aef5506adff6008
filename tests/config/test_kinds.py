"""Kinds an operator declares: what is taken, and what each wrong declaration is answered with."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.config.kinds import BUILT_IN_KINDS, KindSetting, ReadySetting, parse_kind, parse_kinds
from mhnos_runtime.errors import ConfigError


def parse(text: str) -> tuple[KindSetting, ...]:
    return parse_kinds(tomllib.loads(text).get("kinds", {}), "file /c.toml")


def test_whole_declaration() -> None:
    (kind,) = parse(
        '[kinds.deno]\nargv = ["deno", "run", "--x={command}", "{args}"]\npty = true\ncommand = "text"\n'
        'env = {B = "2", A = "1"}\ndescription = "Deno scripts"\n'
    )
    assert kind == KindSetting(
        name="deno",
        argv=("deno", "run", "--x={command}", "{args}"),
        pty=True,
        env=(("A", "1"), ("B", "2")),
        command="text",
        description="Deno scripts",
    )


def test_limits_are_names_that_are_known_with_numbers() -> None:
    (kind,) = parse('[kinds.a]\nargv = ["a"]\nlimits = {open_files = 64, cpu_seconds = 5}\n')
    assert kind.limits == (("cpu_seconds", 5), ("open_files", 64))
    assert parse_kinds({"a": kind.to_plain()}, "hand-over") == (kind,)
    for wrong, said in (
        ("{cpu_second = 5}", "did you mean cpu_seconds"),
        ("{open_files = 0}", "above 0"),
        ("5", "table"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse(f'[kinds.a]\nargv = ["a"]\nlimits = {wrong}\n')


def test_one_that_serves() -> None:
    (kind,) = parse(
        '[kinds.a]\nargv = ["{engine:node}", "a.js", "{port:http}", "{socket}"]\nenv = {T = "{token}"}\n'
        'ready = {url = "http://127.0.0.1:{port:http}/up", line = "^up$", timeout_seconds = 5}\n'
        "grace_seconds = 2.5\nneeded_memory_bytes = 1000\nsingle = true\n"
    )
    assert kind.ready == ReadySetting("^up$", "", "http://127.0.0.1:{port:http}/up", 5.0)
    assert (kind.grace_seconds, kind.needed_memory_bytes, kind.single) == (2.5, 1000, True)
    assert parse_kinds({"a": kind.to_plain()}, "hand-over") == (kind,)


@pytest.mark.parametrize(
    ("ready", "said"),
    [
        ("1", "expected a table such as"),
        ("{}", "expected a table such as"),
        ("{lines = 'x'}", "has 'lines' (did you mean line?)"),
        ("{timeout_seconds = 5}", "expected line, port or url"),
        ("{line = '('}", "expected a regular expression"),
        ("{line = 1}", "expected a regular expression"),
        ("{port = 'a b'}", "expected the name of a port"),
        ("{port = 'main', url = 'http://127.0.0.1:{port}'}", "expected one of them"),
        ("{port = 'other'}", "ready needs {port:other}, which neither argv nor env has"),
        ("{url = 'http://127.0.0.1:{port:other}'}", "ready needs {port:other}"),
        ("{url = 'http://example.com:{port}/'}", "expected a URL of this machine"),
        ("{url = 'http://127.0.0.1:8080/'}", "expected a URL of this machine"),
        ("{url = 'http://127.0.0.1:{port}@example.com/'}", "expected a URL of this machine"),
        ("{url = 'file:///etc/passwd'}", "expected a URL of this machine"),
        ("{line = 'x', timeout_seconds = 0}", "expected seconds"),
        ("{line = 'x', timeout_seconds = true}", "expected seconds"),
    ],
)
def test_wrong_readiness(ready: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'[kinds.a]\nargv = ["a", "{{port}}"]\nready = {ready}\n')
    assert said in caught.value.message


def test_smallest_declaration() -> None:
    assert parse('[kinds.irb]\nargv = ["irb"]\n') == (KindSetting("irb", ("irb",)),)


def test_several_keep_their_order() -> None:
    kinds = parse('[kinds.b]\nargv = ["b"]\n[kinds.a]\nargv = ["a"]\n')
    assert [kind.name for kind in kinds] == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kinds = 1", "kinds in file /c.toml: expected tables"),
        ("[kinds]\ndeno = 1", "kinds.deno in file /c.toml: expected a table with argv"),
        ("[kinds.Deno]\nargv = ['d']", "kinds.'Deno' in file /c.toml: expected a name"),
        ("[kinds.'a b']\nargv = ['d']", "expected a name"),
        ("[kinds.9a]\nargv = ['d']", "expected a name"),
        (f"[kinds.{'a' * 33}]\nargv = ['d']", "expected a name"),
        ("[kinds.deno]", "kinds.deno in file /c.toml: argv is missing; expected a list such as"),
        ("[kinds.deno]\nargs = ['d']", "unknown key 'args' (did you mean argv?); known: argv, pty"),
        ("[kinds.deno]\nargv = []", "argv is []; expected a list of at least one text"),
        ("[kinds.deno]\nargv = 'deno run'", "argv is 'deno run'; expected a list"),
        ("[kinds.deno]\nargv = ['d', 1]", "expected a list of at least one text"),
        ("[kinds.deno]\nargv = ['']", "argv begins with ''; expected the program's name or path"),
        ("[kinds.deno]\nargv = ['{command}']", "argv begins with '{command}'"),
        (
            "[kinds.deno]\nargv = ['d', '--{args}']",
            "argv has '--{args}'; expected {args} as an item of its own",
        ),
        ("[kinds.deno]\nargv = ['d', '{args}', '{args}']", "has {args} twice"),
        ("[kinds.deno]\nargv = ['d', '{comand}']", "argv has {comand} (did you mean {command}?)"),
        ('[kinds.deno]\nargv = ["d\\u0000"]', "expected a list of at least one text"),
        ("[kinds.deno]\nargv = ['{engine:nod}']", "has {engine:nod} (did you mean node?)"),
        ("[kinds.deno]\nargv = ['{socket}']", "argv begins with '{socket}'"),
        ("[kinds.deno]\nargv = ['d']\nsingle = 1", "single is 1; expected true or false"),
        ("[kinds.deno]\nargv = ['d']\ngrace_seconds = -1", "grace_seconds is -1; expected seconds"),
        ("[kinds.deno]\nargv = ['d']\nneeded_memory_bytes = '1g'", "expected a number of bytes"),
        ("[kinds.deno]\nargv = ['d']\npty = 1", "pty is 1; expected true or false"),
        ("[kinds.deno]\nargv = ['d']\nenv = ['A=1']", "env is ['A=1']; expected a table of texts"),
        (
            "[kinds.deno]\nargv = ['d']\nenv = {A = 1}",
            "env has 'A' = 1; expected a variable's name and a text",
        ),
        ("[kinds.deno]\nargv = ['d']\nenv = {'A=B' = '1'}", "expected a variable's name and a text"),
        ("[kinds.deno]\nargv = ['d']\ncommand = 'file'", "command is 'file'; expected \"script\""),
        ("[kinds.deno]\nargv = ['d']\ndescription = 1", "description is 1; expected one line of text"),
        ("[kinds.deno]\nargv = ['d']\ndescription = \"a\\nb\"", "expected one line of text"),
        *((f"[kinds.{name}]\nargv = ['d']", f"{name} is built in") for name in BUILT_IN_KINDS),
    ],
)
def test_wrong_declaration(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_braces_of_a_program_are_its_own() -> None:
    (kind,) = parse('[kinds.awk]\nargv = ["awk", "{print $1}"]\n')
    assert kind.argv == ("awk", "{print $1}")


words = st.text(st.characters(exclude_characters="\0{}", exclude_categories=["Cs"]), max_size=20)


@given(
    argv=st.lists(words, max_size=4),
    pty=st.booleans(),
    env=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), words, max_size=3),
)
def test_plain_form_is_read_back(argv: list[str], pty: bool, env: dict[str, str]) -> None:
    kind = KindSetting("k", ("program", *argv, "{args}"), pty=pty, env=tuple(sorted(env.items())))
    assert parse_kinds({"k": kind.to_plain()}, "x") == (kind,)


def test_what_is_kept_with_each_process_is_bounded() -> None:
    for ready in ({"line": "x" * 1025}, {"url": "http://127.0.0.1:{port}/" + "x" * 1024}):
        with pytest.raises(ConfigError, match="ready"):
            parse_kind("deno", {"argv": ["deno", "{port}"], "ready": ready}, "a test")
