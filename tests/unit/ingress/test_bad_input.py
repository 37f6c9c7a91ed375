"""What is not a request, or not one that can be served, gets a clear answer."""

import json

import pytest

from tests.unit.ingress.conftest import House, answering

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nBad Header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : app.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nHost: other.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\nHost: app.test\r\n\r\n",
    ],
)
async def test_a_malformed_request_gets_400(house: House, request_bytes: bytes) -> None:
    """As plain text, readable from any origin, with an id."""
    client = await house.connect()
    await client.send(request_bytes)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"access-control-allow-origin: *" in head
    assert b"x-request-id: " in head
    assert body.startswith(b"modal-http: bad request")


async def test_an_unknown_transfer_coding_gets_501(house: House) -> None:
    """It could not be passed on as it was meant."""
    client = await house.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    head, _ = await client.response()
    assert head.startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize("whole", [True, False])
async def test_a_head_over_64_kib_gets_431(house: House, whole: bool) -> None:
    """Whether it comes to an end or not."""
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: app.test\r\nX: " + b"x" * 66_000 + (b"\r\n\r\n" if whole else b""))
    head, _ = await client.response()
    assert head.startswith(b"HTTP/1.1 431 ")


async def test_a_head_of_60_kib_passes(house: House) -> None:
    """The limit does not come early."""
    await house.container(answering(OK))
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: app.test\r\nX: " + b"x" * 60_000 + b"\r\n\r\n")
    assert (await client.response())[1] == b"ok"


async def test_an_unknown_host_gets_the_text_that_clients_know(house: House) -> None:
    """To the letter."""
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 404 ")
    assert body == b"modal-http: invalid function call"


async def test_an_error_is_json_for_those_who_ask_for_it(house: House) -> None:
    """With the same text and id."""
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: other.test\r\nAccept: application/json\r\n\r\n")
    head, body = await client.response()
    error = json.loads(body)["error"]
    assert error["message"] == "modal-http: invalid function call"
    assert error["request_id"].encode() in head


async def test_a_page_of_any_origin_may_read_a_refusal(house: House) -> None:
    """With credentials, too; and the request's id."""
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: other.test\r\nOrigin: https://page.test\r\n\r\n")
    head, _ = await client.response()
    assert b"access-control-allow-origin: https://page.test\r\n" in head
    assert b"access-control-allow-credentials: true\r\n" in head
    assert b"access-control-expose-headers: x-request-id\r\n" in head


async def test_a_preflight_of_a_refused_request_passes(house: House) -> None:
    """Else the page would never see why it was refused."""
    client = await house.connect()
    await client.send(
        b"OPTIONS / HTTP/1.1\r\nHost: other.test\r\nOrigin: https://page.test\r\n"
        b"Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
    )
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"access-control-allow-methods: PUT\r\n" in head
    assert b"access-control-allow-headers: authorization\r\n" in head
    assert body == b""


async def test_an_absolute_target_names_the_host(house: House) -> None:
    """It counts more than the Host header; the container sees a path."""
    requests: list[bytes] = []
    await house.container(answering(OK, requests=requests))
    client = await house.connect()
    await client.send(b"GET http://app.test/x?y HTTP/1.1\r\nHost: other.test\r\n\r\n")
    await client.response()
    assert requests[0].startswith(b"GET /x?y HTTP/1.1\r\n")
    assert b"host: app.test" in requests[0]


async def test_an_offer_of_http_2_is_ignored(house: House) -> None:
    """The request is answered in HTTP/1.1."""
    await house.container(answering(OK))
    client = await house.connect()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    )
    assert (await client.response())[1] == b"ok"


async def test_a_bad_request_after_a_good_one_ends_the_connection(house: House) -> None:
    """All of the good ones are answered before it."""
    await house.container(answering(OK, OK))
    client = await house.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n" * 2 + b"NONSENSE\r\n\r\n")
    for _ in range(2):
        assert (await client.response())[1] == b"ok"
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
