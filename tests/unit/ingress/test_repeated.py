"""Heads that come again, byte for byte: they mean the same, whichever way they went."""

from __future__ import annotations

import re

import pytest

from portico.ingress.head import RequestHead, repeated
from portico.wire.memory import Memory
from tests.unit.ingress.conftest import Client, House, answering

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok"
GET = b"GET /a?b=c HTTP/1.1\r\nHost: app.test\r\nX-A: B\r\nAccept: application/json\r\n\r\n"


async def ask(client: Client, request: bytes) -> tuple[bytes, bytes]:
    """The answer, without what differs from one to the next."""
    await client.send(request)
    head, body = await client.response()
    return re.sub(rb"(x-request-id|date): [^\r]+", rb"\1: *", head), body


async def test_repetitions_are_passed_on_like_the_first(house: House) -> None:
    """Requests and answers, which are known from the third on."""
    requests: list[bytes] = []
    await house.container(answering(*[OK] * 6, requests=requests))
    client = await house.connect()
    answers = {await ask(client, GET) for _ in range(6)}
    assert house.ingress.heads.known
    assert house.ingress.upstreams.answers.known
    assert len(answers) == 1
    ids = {request.split()[4] for request in requests}
    assert len(ids) == 6
    assert len({re.sub(rb"x-portico-input: \S+ \S+ \S+", b"", request) for request in requests}) == 1
    assert [await house.endpoint.ends.get() for _ in range(6)] == ["release"] * 6


async def test_the_same_lines_behind_another_request_line(house: House) -> None:
    """Method and target are read anew."""
    requests: list[bytes] = []
    await house.container(answering(*[OK] * 4, requests=requests))
    client = await house.connect()
    for line in (b"GET /a?b=c", b"GET /a?b=c", b"DELETE /else/where?x=%20", b"GET /a?b=c"):
        await ask(client, GET.replace(b"GET /a?b=c", line))
    assert [request.split(b" HTTP")[0] for request in requests][2:] == [b"DELETE /else/where?x=%20", b"GET /a?b=c"]


@pytest.mark.parametrize("cut", range(1, len(GET)))
async def test_a_known_request_may_come_in_pieces(house: House, cut: int) -> None:
    """Cut at every byte, and whole again afterwards."""
    requests: list[bytes] = []
    await house.container(answering(*[OK] * 4, requests=requests))
    client = await house.connect()
    client.writer.transport.set_write_buffer_limits(0)
    await ask(client, GET)
    await ask(client, GET)
    await client.send(GET[:cut])
    assert (await ask(client, GET[cut:]))[1] == b"ok"
    assert (await ask(client, GET))[1] == b"ok"
    assert len({re.sub(rb"x-portico-input: \S+ \S+ \S+", b"", request) for request in requests}) == 1


async def test_known_requests_may_come_together(house: House) -> None:
    """Two in one piece are two."""
    await house.container(answering(*[OK] * 4))
    client = await house.connect()
    await ask(client, GET)
    await ask(client, GET)
    await client.send(GET + GET)
    assert (await client.response())[1] == b"ok"
    assert (await client.response())[1] == b"ok"


@pytest.mark.parametrize(
    "line",
    [b"GET /a b", b"GET /a\x00", b"GET /\xff\n", b"get /a", b"GET a", b"\x00GET /a", b"GET"],
)
async def test_known_lines_make_no_bad_request_line_good(house: House, line: bytes) -> None:
    """It is refused, as without them."""
    await house.container(answering(*[OK] * 2))
    client = await house.connect()
    await ask(client, GET)
    await ask(client, GET)
    await client.send(GET.replace(b"GET /a?b=c", line))
    assert (await client.head()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("header", [b"Cookie: a=b", b"Authorization: Basic eA==", b"Modal-Key: wk-1", b"X-Real-IP: 1"])
async def test_nothing_secret_is_remembered(house: House, header: bytes) -> None:
    """What may be is parsed each time; other headers that are dropped are dropped each time."""
    requests: list[bytes] = []
    await house.container(answering(*[OK] * 4, requests=requests))
    client = await house.connect()
    for _ in range(4):
        await ask(client, GET.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n"))
    memory = house.ingress.heads
    assert header.startswith(b"X-") or not (memory.known or memory._once)
    assert not any(b"x-real-ip" in request.lower() for request in requests)


async def test_no_cookie_that_is_set_is_remembered(house: House) -> None:
    """It passes each time."""
    await house.container(answering(*[OK.replace(b"x-a: b", b"Set-Cookie: a=b")] * 4))
    client = await house.connect()
    for _ in range(4):
        assert b"\r\nSet-Cookie: a=b\r\n" in (await ask(client, GET))[0]
    assert not house.ingress.upstreams.answers.known


async def test_a_known_answer_that_is_not_whole_is_waited_for(house: House) -> None:
    """Its head is the same, its body comes later."""
    await house.container(answering(OK, OK, OK[:-1]))
    client = await house.connect()
    await ask(client, GET)
    await ask(client, GET)
    await client.send(GET)
    assert b"content-length: 2\r\n" in await client.head()
    assert await client.reader.readexactly(1) == b"o"


async def test_a_known_answer_to_head_has_no_body(house: House) -> None:
    """What is known of answers to GET does not hold for it."""
    await house.container(answering(OK, OK, OK[:-2], OK))
    client = await house.connect()
    await ask(client, GET)
    await ask(client, GET)
    await client.send(GET.replace(b"GET", b"HEAD"))
    assert b"content-length: 2\r\n" in await client.head()
    assert (await ask(client, GET))[1] == b"ok"


async def test_a_known_answer_may_be_held(house: House) -> None:
    """Its slot is given back as it says."""
    await house.container(answering(*[OK.replace(b"x-a: b", b"x-portico-held: 1")] * 4))
    client = await house.connect()
    for _ in range(4):
        assert b"held" not in (await ask(client, GET))[0]
    assert [await house.endpoint.ends.get() for _ in range(4)] == ["hold"] * 4


def test_a_memory_is_bounded() -> None:
    """However many different heads come, twice each."""
    memory: Memory[RequestHead] = Memory()
    head = RequestHead()
    for number in range(5_000):
        raw = b"%d" % number
        assert not memory.has_seen(raw)
        assert memory.has_seen(raw)
        memory.learn(raw, head)
    assert len(memory.known) <= 512
    assert len(memory._once) <= 512
    assert repeated(memory, b"GET / HTTP/1.1\r\n\r\n") is None
