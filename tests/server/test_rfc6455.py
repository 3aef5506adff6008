"""What RFC 6455 asks of a server that receives frames, tried with raw bytes: framing, pings, reserved bits,
reserved opcodes, fragments, UTF-8, closing. Grouped as in Autobahn's test suite; the cases are our own."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import HEADER
from tests.server.raw import BINARY, CLOSE, CONTINUATION, PATIENCE, PING, PONG, TEXT, Frame, frame, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = (TEXT, BINARY)
CONTROL = (CLOSE, PING, PONG)


def ping(id_: str, pad: str = "") -> bytes:
    """A message of the runtime's that is answered with its id."""
    return json.dumps({"type": "ping", "id": id_, "pad": pad}, ensure_ascii=False).encode()


def sized(size: int) -> bytes:
    return ping("sized", "x" * (size - len(ping("sized"))))


async def refused(server: TestServer, data: bytes, code: int) -> None:
    async with raw(server) as client:
        await client.send(data)
        assert await client.closed() == code


# Framing

SIZES = (60, 125, 126, 127, 128, 255, 65_535, 65_536, 1 << 20)


@pytest.mark.parametrize("piece", [0, 997])
@pytest.mark.parametrize("size", SIZES)
async def test_text_of_every_form_of_length(server: TestServer, size: int, piece: int) -> None:
    async with raw(server) as client:
        payload = sized(size)
        assert len(payload) == size
        await client.send(frame(TEXT, payload), piece)
        assert (await client.message())["id"] == "sized"


@pytest.mark.parametrize("piece", [0, 997])
async def test_binary_of_every_form_of_length_arrives_as_it_was_sent(server: TestServer, piece: int) -> None:
    """As what is typed into a process that writes back what it is given."""
    async with raw(server) as client:
        spawn = {"type": "spawn", "id": 1, "processType": "shell", "command": "exec cat", "pty": False}
        await client.send(frame(TEXT, json.dumps(spawn).encode()))
        pid = (await client.message())["pid"]
        sent, came = bytearray(), bytearray()
        for number, size in enumerate((0, 1, 100, 110, 111, 125, 4096, 65_519, 65_520, 200_000)):
            body = bytes((number + index) & 0xFF for index in range(size))
            sent += body
            await client.send(frame(BINARY, HEADER.pack(3, 0, 0, pid, 0) + body), piece)
            while len(came) < len(sent):
                got = await client.frame()
                assert got.opcode == BINARY
                came += got.payload[HEADER.size :]
        assert came == sent


async def test_what_is_cut_at_every_byte_is_understood(server: TestServer) -> None:
    data = b"".join(
        (
            frame(TEXT, ping("one", "é€𝄞")),
            frame(PING, b"\xff\x00 not text"),
            frame(TEXT, b'{"type":"ping",', final=False),
            frame(PING, b""),
            frame(CONTINUATION, b"", final=False),
            frame(CONTINUATION, b'"id":"two"}'),
            frame(TEXT, sized(130)),
            frame(PONG, b"nobody asked"),
            frame(CLOSE, struct.pack(">H", 3999) + "adieu é".encode()),
        )
    )
    async with raw(server) as client:
        await client.send(data, 1)
        assert (await client.message())["id"] == "one"
        assert await client.frame() == Frame(PONG, b"\xff\x00 not text")
        assert await client.frame() == Frame(PONG, b"")
        assert (await client.message())["id"] == "two"
        assert (await client.message())["id"] == "sized"
        assert await client.closed() == 3999


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x01\x02\x03"])
async def test_any_mask(server: TestServer, mask: bytes) -> None:
    async with raw(server) as client:
        await client.send(frame(TEXT, ping("masked"), mask=mask), 5)
        assert (await client.message())["id"] == "masked"


async def test_messages_that_are_sent_with_the_handshake_are_received(server: TestServer) -> None:
    """What came before the server had taken the connection over was dropped, so that frames began in the
    middle."""
    behind = frame(TEXT, ping("first")) + frame(TEXT, ping("second"))[:9]
    async with raw(server, behind=behind) as client:
        assert (await client.message())["id"] == "first"
        await client.send(frame(TEXT, ping("second"))[9:])
        assert (await client.message())["id"] == "second"


@pytest.mark.parametrize("opcode", [CONTINUATION, *DATA, *CONTROL])
async def test_a_frame_without_a_mask(server: TestServer, opcode: int) -> None:
    """RFC 6455, 5.1: they were taken like all others."""
    await refused(server, frame(opcode, b"", mask=None), 1002)


async def test_a_message_without_a_mask_is_not_done(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(TEXT, ping("unmasked"), mask=None))
        assert (await client.frame()).code == 1002


@pytest.mark.parametrize(
    ("length", "form"),
    [(0, 16), (125, 16), (0, 64), (125, 64), (126, 64), (65_535, 64), (1 << 63, 64), ((1 << 64) - 1, 64)],
)
async def test_a_length_that_is_not_in_its_shortest_form_or_negative(
    server: TestServer, length: int, form: int
) -> None:
    """RFC 6455, 5.2."""
    await refused(server, frame(TEXT, length=length, form=form), 1002)


@pytest.mark.parametrize("length", [(128 << 20) + 1, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("opcode", DATA)
async def test_a_length_that_nobody_has_is_refused_before_it_arrives(
    server: TestServer, opcode: int, length: int
) -> None:
    await refused(server, frame(opcode, length=length), 1009)


# Pings and pongs


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff\xfe\xfd", b"\xfe" * 125])
@pytest.mark.parametrize("piece", [0, 1])
async def test_a_ping_is_answered_with_what_it_carries(
    server: TestServer, payload: bytes, piece: int
) -> None:
    async with raw(server) as client:
        await client.send(frame(PING, payload), piece)
        assert await client.frame() == Frame(PONG, payload)


async def test_ten_pings_are_answered_in_order(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(b"".join(frame(PING, b"%d" % number) for number in range(10)))
        for number in range(10):
            assert await client.frame() == Frame(PONG, b"%d" % number)


async def test_a_pong_that_nobody_asked_for_is_ignored(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(PONG) + frame(PONG, b"x" * 125) + frame(PING, b"after"))
        assert await client.frame() == Frame(PONG, b"after")


@pytest.mark.parametrize("opcode", CONTROL)
async def test_a_control_frame_of_more_than_125_bytes(server: TestServer, opcode: int) -> None:
    await refused(server, frame(opcode, b"\x03\xe8" + b"x" * 124), 1002)


# Reserved bits and opcodes


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("opcode", [*DATA, *CONTROL])
async def test_a_reserved_bit_without_an_extension(server: TestServer, opcode: int, bits: int) -> None:
    await refused(server, frame(opcode, reserved=bits), 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"x"])
async def test_a_reserved_opcode(server: TestServer, opcode: int, payload: bytes) -> None:
    await refused(server, frame(opcode, payload), 1002)


async def test_what_came_before_a_violation_is_done(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(TEXT, ping("before")) + frame(PING, b"x") + frame(TEXT, reserved=4))
        assert (await client.message())["id"] == "before"
        assert await client.frame() == Frame(PONG, b"x")
        assert await client.closed() == 1002


# Fragments


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("piece", [0, 1])
async def test_a_message_in_fragments(server: TestServer, size: int, piece: int) -> None:
    message = ping("fragments", "é€𝄞" * 5)
    parts = [message[start : start + size] for start in range(0, len(message), size)]
    data = b"".join(
        frame(CONTINUATION if index else TEXT, part, final=index == len(parts) - 1, mask=b"mask")
        for index, part in enumerate(parts)
    )
    async with raw(server) as client:
        await client.send(data, piece)
        assert (await client.message())["id"] == "fragments"
        await client.works()


async def test_control_frames_between_fragments_are_answered_at_once(server: TestServer) -> None:
    async with raw(server) as client:
        message = ping("interleaved")
        await client.send(frame(TEXT, message[:5], final=False) + frame(PING, b"between"))
        assert await client.frame() == Frame(PONG, b"between")
        await client.send(frame(CONTINUATION, b"", final=False) + frame(PONG, b"x") + frame(PING, b"again"))
        assert await client.frame() == Frame(PONG, b"again")
        await client.send(frame(CONTINUATION, message[5:]))
        assert (await client.message())["id"] == "interleaved"


async def test_a_close_between_fragments(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(TEXT, b'{"type"', final=False) + frame(CLOSE, struct.pack(">H", 1000)))
        assert await client.closed() == 1000


async def test_an_empty_message_of_empty_fragments(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(TEXT, final=False) + frame(CONTINUATION, final=False) + frame(CONTINUATION))
        assert (await client.message())["code"] == "invalid-message"
        await client.works()


FRAGMENT_VIOLATIONS = {
    "continuation of nothing": frame(CONTINUATION, b"x"),
    "continuation of nothing, to be continued": frame(CONTINUATION, b"x", final=False),
    "continuation after a whole message": frame(TEXT, ping("x")) + frame(CONTINUATION, b"x"),
    "text inside of a text": frame(TEXT, b"x", final=False) + frame(TEXT, b"y"),
    "text inside of an empty text": frame(TEXT, b"", final=False) + frame(TEXT, b"y"),
    "binary inside of a text": frame(TEXT, b"x", final=False) + frame(BINARY, b"y", final=False),
    "text inside of a binary": frame(BINARY, b"x", final=False) + frame(TEXT, b"y", final=False),
    "a ping in fragments": frame(PING, b"x", final=False) + frame(CONTINUATION, b"y"),
    "a pong in fragments": frame(PONG, b"x", final=False),
    "a close in fragments": frame(CLOSE, b"\x03\xe8", final=False),
}


@pytest.mark.parametrize("data", FRAGMENT_VIOLATIONS.values(), ids=FRAGMENT_VIOLATIONS.keys())
async def test_fragments_out_of_order(server: TestServer, data: bytes) -> None:
    await refused(server, data, 1002)


# UTF-8

WELL_FORMED = [
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\x00\x7f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff",
    "\ud7ff\ue000\ufffd\ufffe",
    "\U0001f600" * 30,
]


@pytest.mark.parametrize("text", WELL_FORMED, ids=ascii)
@pytest.mark.parametrize("fragments", [False, True])
async def test_text_of_any_characters(server: TestServer, text: str, fragments: bool) -> None:
    async with raw(server) as client:
        message = json.dumps({"type": "ping", "id": text}, ensure_ascii=False).encode()
        if fragments:
            data = b"".join(
                frame(CONTINUATION if index else TEXT, message[index : index + 1], final=False)
                for index in range(len(message))
            )
            await client.send(data + frame(CONTINUATION))
        else:
            await client.send(frame(TEXT, message), 1)
        assert (await client.message())["id"] == text


ILL_FORMED = [
    b"\x80",
    b"\xbf",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x81\xed\xb0\x80",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xc3(",
    b"\xe2\x28\xa1",
    b"\xf0\x28\x8c\xbc",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
]


@pytest.mark.parametrize("text", ILL_FORMED, ids=bytes.hex)
async def test_text_that_is_not_utf_8(server: TestServer, text: bytes) -> None:
    await refused(server, frame(TEXT, b'{"type":"ping","id":"' + text + b'"}'), 1007)
    await refused(server, frame(TEXT, b'"', final=False) + frame(CONTINUATION, text + b'"'), 1007)


@pytest.mark.parametrize("text", [b"\xc3", b"\xe2\x82", b"\xf0\x9d\x84"], ids=bytes.hex)
async def test_text_that_ends_in_the_middle_of_a_character(server: TestServer, text: bytes) -> None:
    await refused(server, frame(TEXT, text), 1007)
    await refused(server, frame(TEXT, text, final=False) + frame(CONTINUATION, b""), 1007)
    await refused(server, frame(TEXT, text, final=False) + frame(CONTINUATION, b"x", final=False), 1007)


@pytest.mark.parametrize("text", [b"\xf4\x90", b"\xed\xa0", b"\xe0\x80", b"\xc0", b"\xf5"], ids=bytes.hex)
async def test_ill_formed_text_ends_the_connection_before_the_rest_of_it_comes(
    server: TestServer, text: bytes
) -> None:
    """In the middle of a frame, and in the middle of a message."""
    whole = frame(TEXT, b"\xce\xba" + text + b"x" * 100)
    await refused(server, whole[: 6 + 2 + len(text)], 1007)
    await refused(
        server, frame(TEXT, b"\xce", final=False) + frame(CONTINUATION, b"\xba" + text, final=False), 1007
    )


async def test_binary_need_not_be_utf_8(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(BINARY, b"\xff\xfe"))
        assert (await client.message())["code"] == "invalid-message"
        await client.works()


# Closing


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
)
@pytest.mark.parametrize("reason", ["", "é" * 61 + "x"], ids=["no reason", "123 bytes"])
async def test_a_close_is_answered_with_its_code(server: TestServer, code: int, reason: str) -> None:
    async with raw(server) as client:
        await client.send(frame(CLOSE, struct.pack(">H", code) + reason.encode()))
        assert await client.closed() == code


async def test_a_close_without_a_code_is_answered_without_one(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(CLOSE))
        assert await client.closed() is None


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32_768, 65_535]
)
async def test_a_code_that_must_not_be_sent(server: TestServer, code: int) -> None:
    """RFC 6455, 7.4: 1006 and 65535 were sent back."""
    await refused(server, frame(CLOSE, struct.pack(">H", code)), 1002)
    await refused(server, frame(CLOSE, struct.pack(">H", code) + b"why"), 1002)


async def test_a_close_frame_of_one_byte(server: TestServer) -> None:
    await refused(server, frame(CLOSE, b"\x03"), 1002)


@pytest.mark.parametrize("reason", [b"\xff", b"\xce\xba\xed\xa0\x80", b"\xc3"], ids=bytes.hex)
async def test_a_reason_that_is_not_utf_8(server: TestServer, reason: bytes) -> None:
    await refused(server, frame(CLOSE, b"\x03\xe8" + reason), 1007)


async def test_nothing_is_done_behind_a_close(server: TestServer) -> None:
    async with raw(server) as client:
        behind = (
            frame(PING, b"x") + frame(TEXT, ping("x")) + frame(CLOSE, b"\x03\xe9") + frame(TEXT, reserved=7)
        )
        await client.send(frame(CLOSE, b"\x03\xe8") + behind)
        assert await client.closed() == 1000


async def test_nothing_is_done_behind_a_violation(server: TestServer) -> None:
    async with raw(server) as client:
        await client.send(frame(TEXT, reserved=1) + frame(PING, b"x") + frame(TEXT, ping("x")) * 1000)
        assert await client.closed() == 1002


@pytest.mark.parametrize("data", [frame(CLOSE, b"\x03\xe8"), frame(TEXT, reserved=1)], ids=["close", "wrong"])
async def test_the_server_ends_the_connection_by_itself(server: TestServer, data: bytes) -> None:
    """RFC 6455, 7.1.1: a client that has its close frame answered waits for that."""
    async with raw(server) as client:
        await client.send(data)
        assert (await client.frame()).opcode == CLOSE
        async with asyncio.timeout(PATIENCE):
            assert await client.reader.read() == b""


async def test_a_client_that_goes_without_a_word_harms_nobody(server: TestServer) -> None:
    for cut in range(1, 12):
        async with raw(server) as client:
            await client.send(frame(TEXT, ping("cut"))[:cut])
    async with raw(server) as client:
        await client.works()
