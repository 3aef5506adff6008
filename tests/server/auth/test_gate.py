"""The gate: who is let in, and with which words others are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.server.auth.gate import RequestFacts, shown_tokens
from mhnos_runtime.server.auth.grants import Grant, Scope
from tests.server.auth.gates import (
    BAD_HOST,
    HOST,
    LET_IN,
    NO_HOST,
    NO_ORIGIN,
    NO_TOKEN,
    PORT,
    TOKEN,
    OneToken,
    Setting,
    facts,
    gate,
    outcome,
    refusal,
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (f"localhost:{PORT}", LET_IN),
        (f"LOCALHOST.:{PORT}", LET_IN),
        (f"a.localhost:{PORT}", LET_IN),
        (f"127.0.0.1:{PORT}", LET_IN),
        (f"127.9.9.9:{PORT}", LET_IN),
        (f"[::1]:{PORT}", LET_IN),
        (f"[::ffff:127.0.0.1]:{PORT}", LET_IN),
        ("localhost", LET_IN),
        ("localhost:80", LET_IN),
        ("LocalHost:19000", LET_IN),
        ("127.0.0.1:19000", LET_IN),
        ("127.9.9.9:1", LET_IN),
        ("[::1]:19000", LET_IN),
        ("a.localhost:19000", NO_HOST),
        ("localhost:65536", BAD_HOST),
        ("localhost.evil.example:19000", NO_HOST),
        ("127.0.0.1.nip.example:19000", NO_HOST),
        ("evil.example:19000", NO_HOST),
        ("192.168.1.5:19000", NO_HOST),
        (f"localhost.evil.example:{PORT}", NO_HOST),
        (f"127.0.0.1.nip.example:{PORT}", NO_HOST),
        (f"evil.example:{PORT}", NO_HOST),
        (f"evil-localhost:{PORT}", NO_HOST),
        (f"0.0.0.0:{PORT}", NO_HOST),
        (f"[::]:{PORT}", NO_HOST),
        (f"192.168.1.5:{PORT}", NO_HOST),
        (f"2130706433:{PORT}", NO_HOST),
        ("", BAD_HOST),
        (f"a b:{PORT}", BAD_HOST),
        (f"::1:{PORT}", BAD_HOST),
        (f"localhost@evil.example:{PORT}", BAD_HOST),
        (f"evil.example/localhost:{PORT}", BAD_HOST),
        (f"localhost:{PORT}, evil.example", BAD_HOST),
    ],
)
def test_host(host: str, expected: tuple[int, str]) -> None:
    assert outcome(gate().check(facts(hosts=(host,)))) == expected


@pytest.mark.parametrize("hosts", [(), (HOST, HOST), (HOST, "evil.example")])
def test_exactly_one_host(hosts: tuple[str, ...]) -> None:
    assert outcome(gate().check(facts(hosts=hosts))) == BAD_HOST


@pytest.mark.parametrize(
    ("scheme", "port", "expected"),
    [
        ("http", 80, LET_IN),
        ("ws", 80, LET_IN),
        ("https", 443, LET_IN),
        ("wss", 443, LET_IN),
        ("https", 80, NO_HOST),
    ],
)
def test_default_port_need_not_be_said(scheme: str, port: int, expected: tuple[int, str]) -> None:
    setting = Setting(host="192.0.2.7")
    asked = gate(setting, port=port).check(facts(hosts=("192.0.2.7",), scheme=scheme))
    assert outcome(asked) == expected


@pytest.mark.parametrize(
    ("bound", "local", "host", "expected"),
    [
        ("10.0.0.5", "10.0.0.5", "10.0.0.5", LET_IN),
        ("10.0.0.5", "10.0.0.5", "10.0.0.6", NO_HOST),
        ("0.0.0.0", "10.0.0.5", "10.0.0.5", LET_IN),
        ("0.0.0.0", "10.0.0.5", "10.0.0.6", NO_HOST),
        ("0.0.0.0", "10.0.0.5", "0.0.0.0", NO_HOST),
        ("0.0.0.0", "10.0.0.5", "127.0.0.1", LET_IN),
        ("0.0.0.0", "", "10.0.0.5", NO_HOST),
        ("::", "::ffff:10.0.0.5", "10.0.0.5", LET_IN),
        ("::", "2001:db8::5", "[2001:0db8::5]", LET_IN),
        ("::", "fe80::1%eth0", "[fe80::1]", LET_IN),
        ("::", "2001:db8::5", "[::]", NO_HOST),
        ("box.lan", "10.0.0.5", "box.lan", LET_IN),
        ("box.lan", "10.0.0.5", "10.0.0.5", LET_IN),
        ("box.lan", "10.0.0.5", "other.lan", NO_HOST),
    ],
)
def test_address_listened_on(bound: str, local: str, host: str, expected: tuple[int, str]) -> None:
    asked = facts(hosts=(f"{host}:{PORT}",), local_address=local, remote_address="10.0.0.9")
    assert outcome(gate(Setting(host=bound)).check(asked)) == expected


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        ("box.example", "box.example", LET_IN),
        ("box.example", "BOX.example:9999", LET_IN),
        ("box.example", "sub.box.example", NO_HOST),
        ("box.example:81", "box.example:81", LET_IN),
        ("box.example:81", "box.example:82", NO_HOST),
        ("box.example:81", "box.example", NO_HOST),
        ("[2001:db8::1]", "[2001:DB8:0::1]:5", LET_IN),
        ("localhost:8080", "localhost:8080", LET_IN),
    ],
)
def test_allowed_host(allowed: str, host: str, expected: tuple[int, str]) -> None:
    assert outcome(gate(Setting(allow_host=(allowed,))).check(facts(hosts=(host,)))) == expected


def test_refused_host_says_what_to_do() -> None:
    hint = refusal(gate().check(facts(hosts=("box.example:8080",)))).hint
    assert "loopback name" in hint
    assert 'allow_host = ["box.example:8080"]' in hint
    assert "--allow-host box.example:8080" in hint


# --- Origin


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        ((), LET_IN),
        ((f"http://localhost:{PORT}",), LET_IN),
        ((f"HTTP://LOCALHOST:{PORT}",), LET_IN),
        ((f"https://localhost:{PORT}",), NO_ORIGIN),
        ((f"http://127.0.0.1:{PORT}",), NO_ORIGIN),
        (("http://localhost:3000",), NO_ORIGIN),
        (("http://localhost",), NO_ORIGIN),
        (("http://evil.example",), NO_ORIGIN),
        ((f"http://localhost:{PORT}.evil.example",), NO_ORIGIN),
        ((f"http://localhost:{PORT}/",), NO_ORIGIN),
        (("null",), NO_ORIGIN),
        (("",), NO_ORIGIN),
        (("*",), NO_ORIGIN),
        (("file://",), NO_ORIGIN),
        ((f"http://localhost:{PORT}", f"http://localhost:{PORT}"), NO_ORIGIN),
        ((f"http://localhost:{PORT}", "http://evil.example"), NO_ORIGIN),
    ],
)
def test_origin(origins: tuple[str, ...], expected: tuple[int, str]) -> None:
    assert outcome(gate().check(facts(origins=origins))) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://desk.example", LET_IN),
        ("https://desk.example:443", LET_IN),
        ("http://desk.example", NO_ORIGIN),
        ("https://desk.example:8443", NO_ORIGIN),
        ("https://sub.desk.example", NO_ORIGIN),
        ("https://desk.example.evil.example", NO_ORIGIN),
        ("null", LET_IN),
    ],
)
def test_allowed_origin(origin: str, expected: tuple[int, str]) -> None:
    setting = Setting(allow_origin=("https://desk.example", "null"))
    assert outcome(gate(setting).check(facts(origins=(origin,)))) == expected


def test_allowed_origin_as_host_is_not_own() -> None:
    """DNS rebinding: the page's Origin and Host agree with each other, and are both not this server's."""
    asked = facts(hosts=(f"evil.example:{PORT}",), origins=(f"http://evil.example:{PORT}",))
    assert outcome(gate().check(asked)) == NO_HOST


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        # ssh -L 19000:127.0.0.1:18790, docker run -p 19000:18790: what comes by this port comes from here.
        ("127.0.0.1:19000", None, LET_IN),
        ("127.0.0.1:19000", "http://127.0.0.1:19000", LET_IN),
        ("localhost:19000", "http://localhost:19000", LET_IN),
        ("[::1]:19000", "http://[::1]:19000", LET_IN),
        ("localhost", "http://localhost", LET_IN),
        # A dev server's page, or a preview's: another port of loopback is another origin.
        ("127.0.0.1:18790", "http://127.0.0.1:3000", NO_ORIGIN),
        ("127.0.0.1:18790", "http://localhost:18790", NO_ORIGIN),
        ("localhost:19000", "http://localhost:18790", NO_ORIGIN),
        ("localhost:19000", "http://127.0.0.1:19000", NO_ORIGIN),
        ("localhost:19000", "http://localhost", NO_ORIGIN),
        ("localhost:18790", "http://a.localhost:18790", NO_ORIGIN),
        ("localhost", "https://localhost", NO_ORIGIN),
        # Rebinding: Host and Origin agree, by a name of the attacker's.
        ("evil.example:19000", "http://evil.example:19000", NO_HOST),
        ("localhost.evil.example", "http://localhost.evil.example", NO_HOST),
        ("127.0.0.1.nip.example:18790", "http://127.0.0.1.nip.example:18790", NO_HOST),
    ],
)
def test_loopback_names_by_any_port(host: str, origin: str | None, expected: tuple[int, str]) -> None:
    """A forwarded port was refused with 421, and only a restart with --allow-host helped."""
    origins = () if origin is None else (origin,)
    assert outcome(gate().check(facts(hosts=(host,), origins=origins))) == expected


@pytest.mark.parametrize(
    ("hosts", "origins", "reader"),
    [
        ((HOST,), (), None),
        ((HOST,), (f"http://{HOST}",), f"http://{HOST}"),
        ((HOST,), (f"HTTP://{HOST}",), f"HTTP://{HOST}"),
        ((HOST,), ("https://desk.example",), "https://desk.example"),
        ((HOST,), ("null",), None),
        ((HOST,), ("https://evil.example",), None),
        ((HOST,), ("https://desk.example", "https://desk.example"), None),
        ((HOST,), ("",), None),
        ((HOST,), ("https://desk.example\r\nX: y",), None),
        # A page that is allowed may read why its Host is not; one that was made to lead here may not.
        (("box.example",), ("https://desk.example",), "https://desk.example"),
        (("evil.example",), ("http://evil.example",), None),
        ((), (f"http://{HOST}",), None),
        ((HOST, HOST), (f"http://{HOST}",), None),
    ],
)
def test_who_may_read_an_answer(hosts: tuple[str, ...], origins: tuple[str, ...], reader: str | None) -> None:
    guarded = gate(Setting(allow_origin=("https://desk.example",)))
    assert guarded.reader(facts(hosts=hosts, origins=origins)) == reader


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_own_origin_under_tls(scheme: str) -> None:
    assert outcome(gate().check(facts(scheme=scheme, origins=(f"https://localhost:{PORT}",)))) == LET_IN
    assert outcome(gate().check(facts(scheme=scheme, origins=(f"http://localhost:{PORT}",)))) == NO_ORIGIN


def test_refused_origin_says_what_to_do() -> None:
    known = refusal(gate().check(facts(origins=("http://X.example:80",))))
    assert known.hint.endswith("--allow-origin http://x.example")
    assert 'allow_origin = ["http://x.example"]' in known.hint
    assert refusal(gate().check(facts(origins=("no origin",)))).hint == ""


# --- token


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, NO_TOKEN),
        ({"query_tokens": (TOKEN,)}, LET_IN),
        ({"query_tokens": ("x",)}, NO_TOKEN),
        ({"query_tokens": ("",)}, NO_TOKEN),
        ({"query_tokens": (TOKEN, TOKEN)}, LET_IN),
        ({"query_tokens": (TOKEN, "x")}, NO_TOKEN),
        ({"authorizations": (f"Bearer {TOKEN}",)}, LET_IN),
        ({"authorizations": (f"bearer  {TOKEN} ",)}, LET_IN),
        ({"authorizations": ("Bearer x",)}, NO_TOKEN),
        ({"authorizations": ("Bearer ",)}, NO_TOKEN),
        ({"authorizations": ("Bearer",)}, NO_TOKEN),
        ({"authorizations": (TOKEN,)}, NO_TOKEN),
        ({"authorizations": (f"Basic {TOKEN}",)}, NO_TOKEN),
        ({"authorizations": ("Basic x",), "query_tokens": (TOKEN,)}, LET_IN),
        ({"authorizations": (f"Bearer {TOKEN}", "Bearer x")}, NO_TOKEN),
        ({"subprotocols": ("mhnos.v1.1", f"mhnos.token.{TOKEN}")}, LET_IN),
        ({"subprotocols": ("mhnos.v1.1", "mhnos.token.x")}, NO_TOKEN),
        ({"subprotocols": ("mhnos.token.",)}, NO_TOKEN),
        ({"subprotocols": (TOKEN,)}, NO_TOKEN),
        ({"subprotocols": ("mhnos.token.x",), "query_tokens": (TOKEN,)}, NO_TOKEN),
        ({"authorizations": (f"Bearer {TOKEN}",), "query_tokens": ("x",)}, NO_TOKEN),
    ],
)
def test_token(shown: dict[str, tuple[str, ...]], expected: tuple[int, str]) -> None:
    assert outcome(gate().check(facts(**{"query_tokens": (), **shown}))) == expected


def test_words_of_a_refused_token() -> None:
    assert refusal(gate().check(facts(query_tokens=()))).text == "A token is needed"
    assert refusal(gate().check(facts(query_tokens=("x",)))).text == "The token is wrong"


def test_many_shown_tokens_cost_no_more_than_two_comparisons() -> None:
    tokens = OneToken()
    gate(tokens=tokens).check(facts(query_tokens=(TOKEN, *map(str, range(1000)))))
    assert tokens.asked <= 2


def test_no_token_is_repeated_in_a_refusal() -> None:
    for changes in (
        {"hosts": ("evil.example",)},
        {"origins": ("null",)},
        {"query_tokens": ("wrong-token", TOKEN)},
    ):
        verdict = refusal(gate().check(facts(**changes)))
        assert TOKEN not in repr(verdict)
        assert "wrong-token" not in repr(verdict)


@pytest.mark.parametrize("changes", [{"hosts": ("evil.example",)}, {"origins": ("http://evil.example",)}])
def test_refusal_before_the_token_is_the_same_for_right_and_wrong(
    changes: dict[str, tuple[str, ...]],
) -> None:
    tokens = OneToken()
    answers = {gate(tokens=tokens).check(facts(query_tokens=(token,), **changes)) for token in (TOKEN, "x")}
    assert len(answers) == 1
    assert tokens.asked == 0


@given(st.permutations(range(4)), st.lists(st.sampled_from([TOKEN, "x", ""]), min_size=4, max_size=4))
def test_let_in_only_when_all_shown_are_right(order: list[int], values: list[str]) -> None:
    shown = [values[index] for index in order]
    asked = facts(
        query_tokens=tuple(shown[:2]),
        authorizations=(f"Bearer {shown[2]}",),
        subprotocols=(f"mhnos.token.{shown[3]}",),
    )
    assert isinstance(gate().check(asked), Grant) is (set(values) == {TOKEN})
    assert set(shown_tokens(asked)) == set(values)


# --- what is open to strangers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, LET_IN),
        ({"open": False}, NO_TOKEN),
        ({"hosts": ("evil.example",)}, NO_HOST),
        ({"origins": ("http://evil.example",)}, NO_ORIGIN),
        ({"query_tokens": ("stale",)}, LET_IN),
    ],
)
def test_what_is_open_needs_no_token_and_the_other_checks_stay(
    changes: dict[str, object], expected: tuple[int, str]
) -> None:
    asked = facts(**{"open": True, "query_tokens": (), **changes})
    assert outcome(gate().check(asked)) == expected


def test_a_stranger_is_granted_nothing() -> None:
    stranger = gate().check(facts(open=True, query_tokens=(TOKEN,)))
    assert isinstance(stranger, Grant)
    assert (stranger.known, stranger.scopes) == (False, frozenset())


# --- no authentication


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, LET_IN),
        ({"query_tokens": ("x",)}, LET_IN),
        ({"remote_address": "::1"}, LET_IN),
        ({"remote_address": "::ffff:127.0.0.1"}, LET_IN),
        ({"remote_address": "10.0.0.1"}, NO_TOKEN),
        ({"remote_address": ""}, NO_TOKEN),
        ({"hosts": ("evil.example",)}, NO_HOST),
        ({"origins": ("http://evil.example",)}, NO_ORIGIN),
        ({"origins": ("null",)}, NO_ORIGIN),
    ],
)
def test_without_authentication_the_other_checks_stay(
    changes: dict[str, object], expected: tuple[int, str]
) -> None:
    asked = facts(**{"query_tokens": (), **changes})
    assert outcome(gate(Setting(auth="none")).check(asked)) == expected


class Several(OneToken):
    """A token of the operator's and two of other people, as the store has them."""

    def find(self, candidate: str) -> Grant | None:
        found = super().find(candidate)
        names = {"a" * 43: "ann", "b" * 43: "bob", "A" * 43: "ann"}
        lesser = Grant(f"token:{names.get(candidate)}", frozenset({Scope.VIEW}))
        return found or (lesser if candidate in names else None)


@pytest.mark.parametrize(
    ("shown", "principal"),
    [
        (("a" * 43,), "token:ann"),
        (("a" * 43, "a" * 43), "token:ann"),
        (("a" * 43, "A" * 43), "token:ann"),
        (("a" * 43, "b" * 43), None),
        (("a" * 43, TOKEN), None),
        ((TOKEN, "a" * 43), None),
        ((TOKEN, "x" * 43), None),
        (("x" * 43, TOKEN), None),
    ],
)
def test_all_that_is_shown_is_of_one_grant(shown: tuple[str, ...], principal: str | None) -> None:
    """Neither does the greater one win, nor the first."""
    answer = gate(tokens=Several()).check(facts(query_tokens=shown))
    assert (answer.principal if isinstance(answer, Grant) else None) == principal


def test_a_refusal_says_when_no_token_can_be_right() -> None:
    tokens = OneToken()
    tokens.in_force = False
    answer = refusal(gate(tokens=tokens).check(facts(query_tokens=("x",))))
    assert (answer.status, answer.text) == (401, "No token is in force: its file cannot be used")
    assert "--rotate" in answer.hint


def test_a_flood_of_tokens_costs_one_look() -> None:
    """A line of a request has room for a thousand of them."""
    tokens = OneToken()
    refusal(gate(tokens=tokens).check(facts(query_tokens=tuple(f"wrong{number}" for number in range(1000)))))
    assert tokens.asked == 1


# --- whatever arrives


hosts = st.lists(st.one_of(st.text(max_size=30), st.just(HOST)), max_size=2).map(tuple)
texts = st.lists(st.text(max_size=30), max_size=2).map(tuple)


@given(hosts, texts, texts, texts, texts, st.text(max_size=20))
def test_whatever_arrives_is_answered_and_never_let_in_without_the_token(
    host: tuple[str, ...],
    origins: tuple[str, ...],
    authorizations: tuple[str, ...],
    query_tokens: tuple[str, ...],
    subprotocols: tuple[str, ...],
    address: str,
) -> None:
    asked = RequestFacts(
        address,
        host,
        origins,
        authorizations,
        query_tokens,
        subprotocols,
        local_address=address,
    )
    verdict = refusal(gate().check(asked))
    assert verdict.status in (400, 401, 403, 421)
    assert verdict.text
