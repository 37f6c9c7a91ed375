"""What a request has to pass before anything is done for it: proxy auth, rate limit, size."""

from __future__ import annotations

import asyncio
import contextlib
import json
from hashlib import sha256

import pytest

from portico.core.tokens import ProxyToken
from portico.ingress.admission import Admission, MaxBody, ProxyAuth, RateLimit
from portico.model.policy import Policies, Policy, Scope, Setting
from tests.unit.ingress.conftest import House, answering

HERE = Scope("main", "seed", "square")
KEY, SECRET = "wk-" + "k" * 22, "ws-" + "s" * 22
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
MISSING = b"modal-http: missing credentials for proxy authorization\n"
INVALID = b"modal-http: invalid credentials for proxy authorization\n"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    """Without a rate limit, and with one token."""
    admission = Admission(None, now=clock, wall=clock)
    admission.put_token(ProxyToken(KEY, sha256(SECRET.encode()).digest(), expires_at=2000.0), None)
    return admission


@pytest.fixture
def protected(house: House, admission: Admission) -> House:
    """The house with an endpoint that asks for proxy auth."""
    house.route = admission.route(house.endpoint, HERE, protected=True)
    return house


def request(*headers: str, method: str = "GET", body: str = "") -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", "host: app.test", *headers, "", body]).encode()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], MISSING),
        ([f"Modal-Key: {KEY}"], MISSING),
        ([f"Modal-Secret: {SECRET}"], MISSING),
        (["Authorization: Bearer something-else"], MISSING),
        (["Authorization: Basic dXNlcjpwYXNz"], MISSING),
        ([f"Modal-Key: {KEY}", "Modal-Secret: ws-wrong"], INVALID),
        (["Modal-Key: ", "Modal-Secret: "], INVALID),
        (["Modal-Key: \xff", "Modal-Secret: \xff\xfe"], INVALID),
        ([f"Modal-Key: {KEY}", f"Modal-Key: {KEY}", f"Modal-Secret: {SECRET}"], INVALID),
        ([f"Authorization: Bearer {KEY}.{SECRET[:-1]}x"], INVALID),
        ([f"Authorization: Bearer {KEY}"], INVALID),
        (["Authorization: Bearer wk-.ws-"], INVALID),
        (["Modal-Key: ak-1", "Modal-Secret: as-1"], INVALID),
    ],
)
async def test_a_request_without_good_credentials_gets_no_container(
    protected: House, headers: list[str], body: bytes
) -> None:
    """401 with the texts that clients know; the endpoint is not asked."""
    protected.endpoint.open = False
    client = await protected.connect()
    await client.send(request(*headers).decode().encode("latin-1"))
    head, answer = await client.response()
    assert head.startswith(b"HTTP/1.1 401 ")
    assert answer == body
    assert not protected.endpoint.waiters


@pytest.mark.parametrize(
    "headers",
    [
        [f"Modal-Key: {KEY}", f"Modal-Secret: {SECRET}"],
        [f"modal-secret:   {SECRET}  ", f"MODAL-KEY:{KEY}"],
        [f"Authorization: Bearer {KEY}.{SECRET}"],
        [f"authorization: bearer  {KEY}.{SECRET}"],
    ],
)
async def test_a_token_passes_and_is_not_passed_on(protected: House, headers: list[str]) -> None:
    """In either form; the container sees nothing of it."""
    requests: list[bytes] = []
    await protected.container(answering(OK, requests=requests))
    client = await protected.connect()
    await client.send(request(*headers, "X-Other: stays"))
    assert (await client.response())[1] == b"ok"
    seen = requests[0].lower()
    assert b"x-other: stays" in seen
    assert b"modal-" not in seen
    assert b"authorization" not in seen
    assert b"wk-" not in seen


async def test_the_users_own_authorization_is_passed_on(protected: House) -> None:
    """Only a proxy token is taken out of it."""
    requests: list[bytes] = []
    await protected.container(answering(OK, requests=requests))
    client = await protected.connect()
    await client.send(request(f"Modal-Key: {KEY}", f"Modal-Secret: {SECRET}", "Authorization: Bearer own.token"))
    await client.response()
    assert b"Authorization: Bearer own.token\r\n" in requests[0]


async def test_keys_never_reach_an_unprotected_endpoint(house: House) -> None:
    """A client that sends its token everywhere shows it to no user code."""
    requests: list[bytes] = []
    await house.container(answering(OK, OK, requests=requests))
    client = await house.connect()
    for headers in ([f"Modal-Key: {KEY}", "Modal-Secret: x"], [f"Authorization: Bearer {KEY}.{SECRET}"]):
        await client.send(request(*headers))
        assert (await client.response())[1] == b"ok"
    assert b"wk-" not in b"".join(requests)


async def test_a_browser_may_ask_whether_it_may_ask(protected: House) -> None:
    """A preflight has no credentials: it goes to the container. A plain OPTIONS is a request like others."""
    await protected.container(answering(OK))
    client = await protected.connect()
    await client.send(request("Origin: https://a.test", "Access-Control-Request-Method: PUT", method="OPTIONS"))
    assert (await client.response())[1] == b"ok"
    await client.send(request("Origin: https://a.test", method="OPTIONS"))
    assert (await client.response())[0].startswith(b"HTTP/1.1 401 ")


async def test_a_websocket_needs_credentials_too(protected: House) -> None:
    """It is refused before it becomes one."""
    client = await protected.connect()
    await client.send(request("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"))
    assert (await client.rest()).startswith(b"HTTP/1.1 401 ")


async def test_a_token_opens_nothing_after_its_end(protected: House, admission: Admission, clock: Clock) -> None:
    """Neither when it has expired nor when it was revoked; also on a connection that it has opened."""
    await protected.container(answering(OK, OK))
    client = await protected.connect()
    good = request(f"Modal-Key: {KEY}", f"Modal-Secret: {SECRET}")
    await client.send(good)
    assert (await client.response())[1] == b"ok"
    clock.now = 2000.0
    await client.send(good)
    assert (await client.response())[1] == INVALID
    clock.now = 1999.0
    admission.tokens.remove(KEY)
    await client.send(good)
    assert (await client.response())[1] == INVALID


async def test_a_token_for_something_else_is_forbidden(house: House, admission: Admission) -> None:
    """403: it is a good token, but not here."""
    admission.put_token(ProxyToken(KEY, sha256(SECRET.encode()).digest(), environments=frozenset({"dev"})), None)
    house.route = admission.route(house.endpoint, HERE, protected=True)
    client = await house.connect()
    await client.send(request(f"Modal-Key: {KEY}", f"Modal-Secret: {SECRET}", "Accept: application/json"))
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 403 ")
    assert json.loads(body)["error"]["code"] == "unauthorized"


async def test_too_many_requests_are_told_when_to_come_again(house: House, admission: Admission, clock: Clock) -> None:
    """429 with Retry-After and RateLimit headers, and no container; the connection stays, and time heals."""
    admission.set_policies(Policies([Policy(HERE, Setting.RATE_LIMIT, "0.2")]))
    house.route = admission.route(house.endpoint, HERE, protected=False)
    house.ingress.now = clock
    await house.container(answering(OK, OK))
    client = await house.connect()
    await client.send(request())
    assert (await client.response())[1] == b"ok"
    house.endpoint.open = False
    await client.send(request())
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nretry-after: 5\r\n" in head
    assert b"\r\nratelimit-remaining: 0\r\nratelimit-reset: 5\r\n" in head
    assert body == b"modal-http: rate limit exceeded: 0.2 requests a second\n"
    assert not house.endpoint.waiters
    house.endpoint.open = True
    clock.now += 5
    await client.send(request())
    assert (await client.response())[1] == b"ok"


def test_a_step_is_there_only_where_it_is_needed(house: House, clock: Clock) -> None:
    """An endpoint without limits and keys has to pass one look at its length."""

    def steps(admission: Admission, *, protected: bool = False) -> list[type]:
        return [type(step) for step in admission.route(house.endpoint, HERE, protected=protected).steps]

    free, limited = Admission(None, now=clock), Admission(200, now=clock)
    assert steps(free) == [MaxBody]
    assert steps(limited) == [RateLimit, MaxBody]
    assert steps(free, protected=True) == [ProxyAuth, RateLimit, MaxBody]  # a token may have a limit


async def test_a_token_has_a_rate_of_its_own(house: House, admission: Admission, clock: Clock) -> None:
    """Others are not touched by it."""
    for name, rate in (("a", 0.2), ("b", None)):
        token = ProxyToken("wk-" + name * 22, sha256(SECRET.encode()).digest())
        admission.put_token(token, rate)
    house.route = admission.route(house.endpoint, HERE, protected=True)
    house.ingress.now = clock
    await house.container(answering(OK, OK, OK))
    client = await house.connect()
    statuses = []
    for name in "aabb":
        await client.send(request(f"Authorization: Bearer wk-{name * 22}.{SECRET}"))
        statuses.append((await client.response())[0][9:12])
    assert statuses == [b"200", b"429", b"200", b"200"]


@pytest.fixture
def small(house: House, admission: Admission) -> House:
    """The house with an endpoint that takes ten bytes."""
    admission.set_policies(Policies([Policy(HERE, Setting.MAX_BODY, "10")]))
    house.route = admission.route(house.endpoint, HERE, protected=False)
    return house


async def test_a_body_that_says_it_is_too_large_is_refused_at_once(small: House) -> None:
    """Before a byte of it has come; one that fits passes."""
    await small.container(answering(OK))
    client = await small.connect()
    await client.send(request("content-length: 10", method="POST", body="x" * 10))
    assert (await client.response())[1] == b"ok"
    await client.send(request("content-length: 11", "expect: 100-continue", method="POST"))
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == b"modal-http: bad request: the request's body is over 10 bytes\n"


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_body_in_chunks_is_refused_at_the_first_byte_too_many(small: House, waiting: bool) -> None:
    """Whether it waits for a container or one has it already; the slot is given back."""
    small.endpoint.open = not waiting
    begun, ended = asyncio.Event(), asyncio.Event()

    async def container(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0123456789\r\n")
        begun.set()
        with contextlib.suppress(ConnectionResetError):
            assert not await reader.read()
        ended.set()
        writer.close()

    await small.container(container)
    client = await small.connect()
    await client.send(request("transfer-encoding: chunked", method="POST", body="a\r\n0123456789\r\n"))
    await (small.endpoint.arrived if waiting else begun).wait()
    await client.send(b"1\r\nx\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 413 ")
    if waiting:
        assert small.endpoint.left.is_set()
    else:
        await ended.wait()
        assert await small.endpoint.ends.get() == "cancel"
