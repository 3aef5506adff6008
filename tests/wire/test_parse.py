"""Requests: every text of protocol 1.0, every kind of bad input, and 20,000 frames that mean nothing."""

from __future__ import annotations

import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from mhnos_runtime.wire import messages
from mhnos_runtime.wire.encode import encode
from mhnos_runtime.wire.faults import error_message
from mhnos_runtime.wire.parse import NotUtf8, WireError, parse_request

ID = Raw(b'{"b" : [1.0, "\\u0041"]}')  # to be echoed byte for byte, not as an equal value


def refused(data: bytes | bytearray | str) -> WireError:
    with pytest.raises(WireError) as caught:
        parse_request(data)
    return caught.value


def answer(data: bytes | str) -> dict[str, object]:
    """The `error` message that the frame gets."""
    decoded = json.loads(encode(error_message(refused(data))))
    assert isinstance(decoded, dict)
    return decoded


@pytest.mark.parametrize(
    "frame",
    ["", "{", "null", " null ", "nul", "{'type':1}", '{"type":"ping"} x', '{"type":"ping"', "\ufeff{}"],
)
def test_what_is_not_json_gets_the_text_of_1_0_and_no_id(frame: str) -> None:
    assert answer(frame) == {
        "type": "error",
        "error": "Invalid message format",
        "code": "invalid-message",
        "retry": False,
    }


def test_a_wrong_field_before_broken_json_does_not_hide_that_it_is_broken() -> None:
    assert answer('{"type":"write","pid":"x","data":\x01')["error"] == "Invalid message format"
    assert answer("[" * 100)["error"] == "Invalid message format"


@pytest.mark.parametrize(
    ("shown", "type_json"),
    [
        ("frob", '"frob"'),
        ("", '""'),
        ("constructor", '"constructor"'),
        ("toString", '"toString"'),
        ("__proto__", '"__proto__"'),
        ("5", "5"),
        ("5", "5.0"),
        ("-0.5", "-0.5"),
        ("0", "-0"),
        ("0.000001", "1e-6"),
        ("1e-7", "1e-7"),
        ("1000", "1e3"),
        ("12345678901234567000", "12345678901234567890"),
        ("1e+21", "1e21"),
        ("1.5e+300", "1.5e300"),
        ("Infinity", "1e400"),
        ("-Infinity", "-1e400"),
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("", "[]"),
        ("ping", '["ping"]'),
        ("1,,a,2,3", '[1,null,"a",[2,3]]'),
        ("[object Object]", '{"a":1}'),
        ("\ufffd", '"\\ud83d"'),
        ("\U0001f600", '"\\ud83d\\ude00"'),
        ("\\ud83d", '"\\\\ud83d"'),
        ("x" * 200 + "…", '"' + "x" * 201 + '"'),
    ],
)
def test_an_unknown_type_is_shown_as_javascript_shows_it(shown: str, type_json: str) -> None:
    """The first server looked types up in an object: `constructor` was found there and never answered."""
    got = answer(f'{{"id":{bytes(ID).decode()},"type":{type_json}}}')
    assert got["error"] == f"Unknown message type: {shown}"
    assert got["code"] == "unknown-type"
    assert got["id"] == json.loads(bytes(ID))


@pytest.mark.parametrize("frame", ["{}", "[]", "[1]", "5", "true", '"ping"', '{"id":1}'])
def test_where_there_is_no_type_it_is_undefined(frame: str) -> None:
    assert answer(frame)["error"] == "Unknown message type: undefined"


@pytest.mark.parametrize(
    ("field", "rest"),
    [
        ("pid", '"type":"write","data":"x"'),
        ("pid", '"type":"write","pid":"1000","data":"x"'),
        ("pid", '"type":"kill","pid":1.5'),
        ("pid", '"type":"attach","pid":' + "9" * 5000),
        ("pid", '"type":"detach","pid":-9007199254740992'),
        ("data", '"type":"write","pid":1,"data":7'),
        ("args[1]", '"type":"spawn","processType":"node","args":["a",5]'),
        ("args", '"type":"spawn","processType":"node","args":"a"'),
        ("options.cwd", '"type":"spawn","processType":"node","options":{"cwd":5}'),
        ("options.env[...]", '"type":"spawn","processType":"node","options":{"env":{"A":1}}'),
        ("options.timeout", '"type":"spawn","processType":"node","options":{"timeout":-1}'),
        ("pty.cols", '"type":"spawn","processType":"node","pty":{"cols":0,"rows":5}'),
        ("cols", '"type":"resize","pid":1,"cols":0,"rows":24'),
        ("cols", '"type":"resize","pid":1,"cols":null,"rows":24'),
        ("rows", '"type":"resize","pid":1,"cols":80,"rows":100000'),
        ("from", '"type":"attach","pid":1,"from":-1'),
        ("from", '"type":"attach","pid":1,"from":"middle"'),
        ("tail", '"type":"attach","pid":1,"tail":1e3'),
        ("offset", '"type":"ack","pid":1,"offset":-5'),
        ("files[0].path", '"type":"fsync","operation":"push","files":[{"path":1}]'),
        ("lingerMs", '"type":"spawn","lingerMs":"5"'),
    ],
)
def test_a_wrong_field_is_named_and_the_id_echoed(field: str, rest: str) -> None:
    error = refused(f'{{"id": {bytes(ID).decode()} ,{rest}}}')
    assert error.code == "invalid-argument"
    assert field in error.message
    assert isinstance(error.request_id, Raw)
    assert bytes(error.request_id) == bytes(ID)


@pytest.mark.parametrize(
    ("expected", "frame"),
    [
        (
            messages.Spawn("node", "app.js", ["-x"], messages.SpawnOptions("/", {"A": "b"}, 1500)),
            (
                '{"type":"spawn","processType":"node","command":"app.js","args":["-x"],'
                '"options":{"cwd":"/","env":{"A":"b"},"timeout":1500}}'
            ),
        ),
        (messages.Spawn("shell"), '{"type":"spawn","processType":"shell"}'),
        (messages.Spawn(), '{"type":"spawn"}'),
        (messages.Spawn("node", pty=False), '{"type":"spawn","processType":"node","pty":false}'),
        (
            messages.Spawn("shell", pty=messages.PtySize(80, 24), name="a", attach=False, linger_ms=5),
            '{"type":"spawn","processType":"shell","pty":{"cols":80,"rows":24},"name":"a","attach":false,"lingerMs":5}',
        ),
        (messages.Attach(1000), '{"pid":1000,"type":"attach"}'),
        (messages.Attach(1000, from_="end"), '{"type":"attach","pid":1000,"from":"end"}'),
        (messages.Attach(1000, from_=7), '{"type":"attach","pid":1000,"from":7}'),
        (messages.Attach(1000, tail=7), '{"type":"attach","pid":1000,"tail":7}'),
        (messages.Detach(1), '{"type":"detach","pid":1}'),
        (messages.Write(1, "l\u00e9\r"), '{"type":"write","pid":1,"data":"l\u00e9\\r"}'),
        (messages.CloseStdin(1), '{"type":"closeStdin","pid":1}'),
        (messages.Resize(1, 80, 24), '{"type":"resize","pid":1,"cols":80,"rows":24}'),
        (messages.Kill(1), '{"type":"kill","pid":1}'),
        (
            messages.Kill(1, "SIGINT", escalate=True),
            '{"type":"kill","pid":1,"signal":"SIGINT","escalate":true}',
        ),
        (messages.List(), '{"type":"list","unknown":{"deep":[1]}}'),
        (messages.List(all=True), '{"type":"list","all":true}'),
        (messages.Status(), '{"type":"status"}'),
        (messages.Ping(), ' {"type" : "ping"} '),
        (messages.Stats(), '{"type":"stats"}'),
        (messages.Ack(1, 2), '{"type":"ack","pid":1,"offset":2}'),
        (messages.Fsync("pull"), '{"type":"fsync","operation":"pull"}'),
        (messages.Fsync(), '{"type":"fsync"}'),
        (
            messages.Fsync("push", [messages.FileEntry("/a", "directory", mtime=1.5)]),
            '{"type":"fsync","operation":"push","files":[{"path":"/a","kind":"directory","mtime":1.5}]}',
        ),
    ],
)
def test_every_request(expected: messages.Message, frame: str) -> None:
    assert parse_request(frame) == expected
    assert parse_request(frame.encode()) == expected
    assert parse_request(bytearray(frame.encode())) == expected
    assert parse_request(encode(expected)) == expected


def test_an_absent_kind_is_what_1_0_calls_it() -> None:
    assert messages.Spawn().process_type == "undefined"
    assert messages.Fsync().operation == "undefined"


@pytest.mark.parametrize(
    "raw", [b"5", b"1.0", b"null", b'"x"', b'{"b" : [1.0, "\\u0041"]}', b'"\\ud83d"', b'"\\\\ud83d"']
)
@pytest.mark.parametrize(
    "rest", ['"type":"ping"', '"type":"ping","x":"\\udc00"', '"type":"nope"', '"type":"attach"']
)
def test_an_id_is_echoed_byte_for_byte(raw: bytes, rest: str) -> None:
    frame = b'{"id": ' + raw + b" ," + rest.encode() + b"}"
    try:
        request_id = parse_request(frame).id
    except WireError as error:
        request_id = error.request_id
    assert isinstance(request_id, Raw)
    assert encode(messages.Pong(5, id=request_id)) == b'{"type":"pong","time":5,"id":' + raw + b"}"


def test_an_id_of_4_kib_is_taken_and_a_longer_one_refused() -> None:
    assert parse_request('{"type":"ping","id":"' + "x" * 4094 + '"}').id is not UNSET
    for kind in ("ping", "nope", "attach"):
        error = refused(f'{{"type":"{kind}","id":"{"x" * 4095}"}}')
        assert (error.code, error.request_id) == ("too-large", UNSET)


DEEP = 100_000


@pytest.mark.parametrize(
    "frame",
    [
        "[" * DEEP,
        "[" * DEEP + "]" * DEEP,
        '{"a":' * DEEP + "1" + "}" * DEEP,
        *(
            f'{{"type":"write","pid":1,"data":"x",{field}:' + opening * DEEP + "1" + closing * DEEP + "}"
            for field in ('"id"', '"data"', '"unknown"', '"type"', '"\\ud83d"')
            for opening, closing in (("[", "]"), ('{"a":', "}"))
        ),
        '{"type":"fsync","operation":"push","files":[{"path":"a","content":'
        + "[" * DEEP
        + "]" * DEEP
        + "}]}",
    ],
    ids=lambda frame: frame[-3:] + frame[:40],
)
def test_deep_nesting_is_refused(frame: str) -> None:
    assert refused(frame).message == "Invalid message format"
    assert refused(bytearray(frame.encode())).message == "Invalid message format"


def test_what_is_nested_some_hundred_levels_is_fine() -> None:
    nested = b"[" * 300 + b"]" * 300
    assert parse_request(b'{"type":"ping","id":' + nested + b',"x":' + nested + b"}").id == Raw(nested)


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"write","pid":1,"data":"\xff"}',
        b'{"type":"ping","unknown":"\xff"}',
        b'{"type":"nope","x":"\xffud83d\\ud83d"}',
        b"\xff",
        '{"type":"write","pid":1,"data":"\ud83d"}',
    ],
)
def test_invalid_utf_8_is_told_apart_wherever_it_stands(frame: bytes | str) -> None:
    """The connection is closed for it, so it must not depend on where the bytes stand."""
    error = refused(frame)
    assert isinstance(error, NotUtf8)
    assert (error.message, error.code) == ("Invalid message format", "invalid-message")


@pytest.mark.parametrize(
    "data", ["\ud83d", "a\ud83d", "\ude00b", "\ude00\ud83d", "\ud83dx\ud83d\ude00", "\\ud83d\ude00"]
)
def test_half_pairs_of_javascript_are_kept_in_write(data: str) -> None:
    frame = json.dumps({"type": "write", "pid": 1, "data": data, "id": 7})
    request = parse_request(frame)
    assert isinstance(request, messages.Write)
    # A surrogate pair that is whole is one character on the other side.
    assert request.data.encode("utf-16", "surrogatepass") == data.encode("utf-16", "surrogatepass")


def test_half_pairs_elsewhere_become_replacement_characters() -> None:
    request = parse_request(
        '{"type":"spawn","processType":"node","args":["a\\ud83d","\\\\ud83d","\\uD83D\\uDE00"]}'
    )
    assert isinstance(request, messages.Spawn)
    assert request.args == ["a\ufffd", "\\ud83d", "\U0001f600"]
    request = parse_request(
        '{"type":"fsync","operation":"push","files":[{"path":"\\udc00","content":"\\ud83d"}]}'
    )
    assert isinstance(request, messages.Fsync)
    assert request.files[0].path == "\ufffd"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_of_javascript_arrives(data: str) -> None:
    request = parse_request(json.dumps({"type": "write", "pid": 1, "data": data}))
    assert isinstance(request, messages.Write)
    assert request.data.encode("utf-16", "surrogatepass") == data.encode("utf-16", "surrogatepass")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "pid",
    "data",
    "cols",
    "rows",
    "from",
    "tail",
    "args",
    "options",
    "pty",
    "signal",
    "files",
    "operation",
    "id",
]
TYPES = [struct.__struct_config__.tag for struct in messages.Request.__args__]


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_gets_a_request_or_an_error_with_its_id(kind: str, fields: dict[str, object]) -> None:
    frame = json.dumps({"type": kind, **fields})
    try:
        request_id = parse_request(frame).id
    except WireError as error:
        request_id = error.request_id
    if "id" in fields:
        assert isinstance(request_id, Raw)
        assert bytes(request_id).decode() == json.dumps(fields["id"])
    else:
        assert request_id is UNSET


SEEDS = [
    b'{"type":"spawn","id":1,"processType":"node","command":"a.js","args":["x"],"options":{"cwd":"/","env":{"A":"b"}}}',
    b'{"type":"attach","id":"x","pid":1000,"from":"start","tail":5}',
    b'{"type":"write","pid":1000,"data":"\\ud83d\\ude00\xc3\xa9\\n"}',
    b'{"type":"resize","pid":1000,"cols":80,"rows":24}',
    b'{"type":"fsync","id":[2],"operation":"push","files":[{"path":"a","kind":"file","content":[1,2],"mtime":5}]}',
]


def _mutated(rng: random.Random) -> bytes:
    frame = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(frame) + 1)
        match rng.randrange(3):
            case 0:
                del frame[at : at + rng.randint(1, 9)]
            case 1:
                frame[at:at] = rng.choice(
                    [b"\\", b'"', b"\\ud8", b"\\udc00", b"{", b"]", b"null", b",", rng.randbytes(2)]
                )
            case _:
                frame[at : at + 1] = rng.randbytes(1)
    return bytes(frame)


@pytest.mark.parametrize(
    "make", [_mutated, lambda rng: rng.randbytes(rng.randint(0, 200))], ids=["mutated", "random"]
)
def test_10_000_frames_give_a_request_or_one_error_that_can_be_sent(make: object) -> None:
    rng = random.Random(20)
    assert callable(make)
    for _ in range(10_000):
        frame = make(rng)
        try:
            parse_request(frame)
        except WireError as error:
            json.loads(encode(error_message(error)))


def test_every_truncation_is_refused() -> None:
    for frame in SEEDS:
        for end in range(len(frame)):
            assert refused(frame[:end]).message == "Invalid message format"


def test_a_raw_value_compares_by_its_bytes() -> None:
    """What the equality in `test_every_request` rests on."""
    assert Raw(b"[1]") == Raw(b"[1]")
    assert msgspec.json.decode(b"[1]", type=Raw) == Raw(b"[1]")
