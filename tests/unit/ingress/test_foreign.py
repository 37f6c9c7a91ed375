"""Exchanges with programs that know nothing of us: they are told what they know, and are not believed."""

from __future__ import annotations

import asyncio

from tests.unit.ingress.conftest import House, answering, read_request

GET = b"GET / HTTP/1.1\r\nhost: app.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_it_hears_of_the_client_by_the_headers_that_everybody_knows(house: House) -> None:
    """What a client says of itself is dropped, and nothing of ours is there."""
    requests: list[bytes] = []
    await house.program(answering(OK, requests=requests))
    client = await house.connect()
    await client.send(GET[:-2] + b"x-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nx-portico-input: x\r\n\r\n")
    await client.response()
    first, *headers = requests[0].split(b"\r\n")
    assert first == b"GET / HTTP/1.1"
    assert headers[0].startswith(b"x-request-id: ")
    assert headers[1:] == [
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-proto: http",
        b"x-forwarded-host: app.test",
        b"host: app.test",
        b"",
        b"",
    ]


async def test_it_cannot_hold_its_slot(house: House) -> None:
    """The header that says so is ours alone, and does not reach the client."""
    await house.program(answering(OK.replace(b"\r\n\r\n", b"\r\nX-Portico-Held: 1\r\n\r\n")))
    client = await house.connect()
    await client.send(GET)
    head, _ = await client.response()
    assert b"portico" not in head.lower()
    assert await house.endpoint.ends.get() == "release"


async def test_a_slot_is_free_when_an_answer_that_nobody_waits_for_begins(house: House) -> None:
    """The program hears that the client has closed its side, and goes on."""
    heard, go = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        client.writer.close()
        assert await reader.read() == b""
        heard.set()
        await go.wait()
        writer.write(OK)

    await house.program(script)
    client = await house.connect()
    await client.send(GET)
    await heard.wait()
    assert house.endpoint.ends.empty()
    go.set()
    assert await house.endpoint.ends.get() == "release"


async def test_a_slot_is_free_when_the_program_gives_up_what_nobody_waits_for(house: House) -> None:
    """It closes the connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        client.writer.close()
        await reader.read()
        writer.close()

    await house.program(script)
    client = await house.connect()
    await client.send(GET)
    assert await house.endpoint.ends.get() == "release"


async def test_an_input_without_an_answer_is_a_502_and_no_reason_to_replace_the_container(house: House) -> None:
    """Programs close connections as they like."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.close()

    await house.program(script)
    client = await house.connect()
    await client.send(POST)
    head, _ = await client.response()
    assert b" 502 " in head
    assert await house.endpoint.ends.get() == "release"


async def test_an_input_that_may_be_repeated_is_tried_again(house: House) -> None:
    """A program that dies may have taken its connection in its last moments."""
    scripts = [answering(), answering(OK)]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(scripts) == 2:
            del scripts[0]
            await read_request(reader)
            writer.close()
        else:
            await scripts[0](reader, writer)

    await house.program(script)
    client = await house.connect()
    await client.send(GET)
    assert (await client.response())[1] == b"ok"


async def test_what_is_not_http_is_a_502_and_no_reason_to_replace_the_container(house: House) -> None:
    """Another container of it would answer the same."""
    await house.program(answering(b"220 mail.example ESMTP\r\n"))
    client = await house.connect()
    await client.send(GET)
    head, _ = await client.response()
    assert b" 502 " in head
    assert await house.endpoint.ends.get() == "release"


async def test_a_program_that_is_gone_is_replaced(house: House) -> None:
    """Nobody listens on its port."""
    await house.program(answering(OK))
    house.endpoint.address = "127.0.0.1:1"
    client = await house.connect()
    await client.send(GET)
    assert await house.endpoint.ends.get() == "broken"


async def test_a_connection_that_the_program_has_closed_is_not_used_again(house: House) -> None:
    """Also when the loop has not read that yet: not even a POST is lost."""
    ports = set()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.add(writer.get_extra_info("peername")[1])
        await read_request(reader)
        writer.write(OK)
        writer.close()

    await house.program(script)
    client = await house.connect()
    for _ in range(20):
        await client.send(POST)
        assert (await client.response())[1] == b"ok"
    assert len(ports) == 20
