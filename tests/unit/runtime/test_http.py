"""HTTP/1.1 as a container speaks it, byte for byte."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from portico.runtime.asgi import App, Receive, Scope, Send
from portico.runtime.guard import AlreadyLogged
from portico.runtime.http import HIGH_WATER, HttpProtocol

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-A: B\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Wire(asyncio.Transport):
    """A transport that keeps each piece that is written."""

    def __init__(self) -> None:
        super().__init__({"sockname": "/run/x.sock"})
        self.pieces: list[bytes] = []
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        self.pieces.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Talk:
    """A connection to an app."""

    def __init__(self, app: App) -> None:
        self.wire = Wire()
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.protocol = HttpProtocol(app, {"shared": 1}, self.connections, self.tasks)
        self.protocol.connection_made(self.wire)

    async def say(self, data: bytes) -> bytes:
        """Send this; what was written when the app has returned."""
        self.protocol.data_received(data)
        while self.tasks:
            await asyncio.wait(list(self.tasks))
        return self.written

    @property
    def written(self) -> bytes:
        return b"".join(self.wire.pieces)


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(BODY)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body, chunked."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def test_an_app_gets_the_request_as_asgi_has_it() -> None:
    """The scope, with names in lower case and the path decoded."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await greet(scope, receive, send)

    assert await Talk(app).say(GET) == OK
    assert scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("/run/x.sock", None),
            "client": None,
            "scheme": "http",
            "method": "GET",
            "root_path": "",
            "path": "/a b",
            "raw_path": b"/a%20b",
            "query_string": b"c=d",
            "headers": [(b"host", b"x"), (b"x-a", b"B")],
            "state": {"shared": 1},
        }
    ]


@pytest.mark.parametrize("cut", range(1, len(POST)))
async def test_a_request_may_come_in_pieces(cut: int) -> None:
    """Cut at every byte."""
    talk = Talk(echo)
    talk.protocol.data_received(POST[:cut])
    await asyncio.sleep(0)
    answer = await talk.say(POST[cut:])
    assert answer.startswith(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert answer.endswith(b"0\r\n\r\n")


async def test_what_is_joined_is_written_at_once() -> None:
    """The head waits for the body only where the sender says that it follows."""

    async def joining(scope: Scope, receive: Receive, send: Any) -> None:
        send.join()
        await greet(scope, receive, send)

    joined, apart = Talk(joining), Talk(greet)
    assert await joined.say(GET) == await apart.say(GET) == OK
    assert (len(joined.wire.pieces), len(apart.wire.pieces)) == (1, 2)


async def test_requests_take_turns() -> None:
    """Those that come together are answered one after the other."""
    talk = Talk(greet)
    assert await talk.say(GET + GET + GET) == OK * 3
    assert not talk.wire.closed


async def test_head_has_no_body() -> None:
    """Whatever the app sends, and without chunks."""
    assert await Talk(greet).say(GET.replace(b"GET", b"HEAD")) == OK[:-2]
    answer = await Talk(echo).say(GET.replace(b"GET", b"HEAD"))
    assert answer == b"HTTP/1.1 200 OK\r\n\r\n"


async def test_the_last_response_of_a_connection_says_so() -> None:
    """The client's wish, or the app's."""
    talk = Talk(greet)
    answer = await talk.say(GET.replace(b"X-A: B", b"Connection: close"))
    assert b"\r\nconnection: close\r\n" in answer
    assert talk.wire.closed


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    """When the app wants the body, once."""
    talk = Talk(echo)
    talk.protocol.data_received(POST.replace(b"host: x", b"expect: 100-continue")[:-5])
    await asyncio.sleep(0)
    assert talk.written.endswith(b"HTTP/1.1 100 Continue\r\n\r\n") or b"100 Continue" not in talk.written
    answer = await talk.say(b"hello")
    assert b"5\r\nhello\r\n" in answer


async def test_a_large_body_waits_for_the_app() -> None:
    """The client is paused until the app receives."""
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    talk = Talk(app)
    size = HIGH_WATER + 1
    talk.protocol.data_received(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (size + 1) + b"x" * size)
    assert talk.wire.paused
    go_on.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not talk.wire.paused
    assert (await talk.say(b"y")).endswith(b"y\r\n0\r\n\r\n")


async def test_an_app_waits_for_a_slow_client() -> None:
    """Until what was written is read."""
    talk = Talk(greet)
    talk.protocol.pause_writing()
    talk.protocol.data_received(GET)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not talk.wire.pieces
    talk.protocol.resume_writing()
    assert await talk.say(b"") == OK


async def test_an_app_hears_that_its_client_has_gone() -> None:
    """It receives a disconnect, and what it sends goes nowhere."""
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            heard.append((await receive())["type"])
            if heard[-1] == "http.disconnect":
                return await greet(scope, receive, send)

    talk = Talk(app)
    talk.protocol.data_received(GET)
    await asyncio.sleep(0)
    talk.protocol.connection_lost(None)
    await talk.say(b"")
    assert heard == ["http.request", "http.disconnect"]
    assert not talk.wire.pieces
    assert not talk.connections


@pytest.mark.parametrize(
    ("length", "text"), [(b"1", "longer than Content-Length"), (b"3", "shorter than Content-Length")]
)
async def test_a_body_has_the_length_that_was_said(length: bytes, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Else the response is cut short, behind its head: also where that waited for the body."""

    async def app(scope: Scope, receive: Receive, send: Any) -> None:
        send.join()
        await send({**START, "headers": [(b"content-length", length)]})
        await send(BODY)

    talk = Talk(app)
    assert (await talk.say(GET)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert talk.wire.closed
    assert text in capfd.readouterr().err


@pytest.mark.parametrize("header", [(b"a b", b"c"), (b"a", b"b\r\nc: d"), (b"a:", b"b")])
async def test_no_header_breaks_out_of_its_line(header: tuple[bytes, bytes]) -> None:
    """The app fails, and the client gets a 500."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [header]})

    assert (await Talk(app).say(GET)).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


async def test_an_app_that_says_nothing_is_a_500(capfd: pytest.CaptureFixture[str]) -> None:
    """And one that ends in the midst of its response is cut off."""

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return None

    async def halting(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)

    assert (await Talk(silent).say(GET)).startswith(b"HTTP/1.1 500 ")
    talk = Talk(halting)
    await talk.say(GET)
    assert talk.wire.closed
    assert capfd.readouterr().err.count("without a whole response") == 2


async def test_what_was_logged_before_is_not_logged_again(capfd: pytest.CaptureFixture[str]) -> None:
    """The connection is closed, and that is all."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AlreadyLogged

    talk = Talk(app)
    assert await talk.say(GET) == b""
    assert talk.wire.closed
    assert not capfd.readouterr().err


async def test_messages_out_of_turn_are_the_apps_errors() -> None:
    """A body before the head, two heads, something behind the end."""
    texts: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (BODY, START, START, BODY, BODY):
            try:
                await send(message)
            except RuntimeError as error:
                texts.append(str(error).rpartition(" has ")[2] if " has " in str(error) else str(error)[-11:])

    assert await Talk(app).say(GET) == OK
    assert texts == ["not begun.", "begun.", "s complete."]


async def test_what_is_no_http_is_refused() -> None:
    """With a 400, and the end."""
    talk = Talk(greet)
    assert (await talk.say(b"\x00\x01\r\n\r\n")).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert talk.wire.closed


async def test_an_idle_connection_is_closed_when_the_server_goes() -> None:
    """A busy one after its response."""
    idle, busy = Talk(greet), Talk(greet)
    idle.protocol.shutdown()
    assert idle.wire.closed
    busy.protocol.data_received(GET)
    busy.protocol.shutdown()
    assert not busy.wire.closed
    assert b"connection: close" in await busy.say(b"")
    assert cast(Wire, busy.wire).closed


LINES = b"host: x\r\nx-a: b\r\n\r\n"


def numbered(number: int, line: bytes = b"GET /a", lines: bytes = LINES) -> bytes:
    """A request as the ingress writes it."""
    return b"%b HTTP/1.1\r\nx-portico-input: %016x 203.0.113.9 1 https\r\n%b" % (line, number, lines)


async def seen(*requests: bytes) -> list[Scope]:
    """The scopes that an app gets for these, each of which was answered."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await greet(scope, receive, send)

    talk = Talk(app)
    for request in requests:
        for piece in request.split(b"|"):
            talk.protocol.data_received(piece)
        await talk.say(b"")
    assert talk.written == OK * len(requests)
    return scopes


async def test_known_header_lines_mean_the_same() -> None:
    """Behind another input's header, and another request line; also when they come in pieces again."""
    scopes = await seen(
        numbered(1), numbered(2), numbered(3), numbered(4, b"DELETE /b%20c?d=e"), numbered(5)[:-3] + b"|" + LINES[-3:]
    )
    inputs = [scope.pop("headers") for scope in scopes]
    assert [headers[0][1].split()[0] for headers in inputs] == [b"%016x" % number for number in range(1, 6)]
    assert all(headers[1:] == [(b"host", b"x"), (b"x-a", b"b")] for headers in inputs)
    assert scopes[0] == scopes[1] == scopes[2] == scopes[4]
    assert scopes[3] == {**scopes[0], "method": "DELETE", "path": "/b c", "raw_path": b"/b%20c", "query_string": b"d=e"}


@pytest.mark.parametrize("line", [b"connection: close", b"expect: 100-continue"])
async def test_lines_that_change_the_road_are_not_known(line: bytes) -> None:
    """They are read each time."""
    for number in range(4):
        talk = Talk(echo)
        answer = await talk.say(numbered(number, lines=line + b"\r\n" + LINES))
        assert talk.wire.closed == line.endswith(b"close")
        assert answer.endswith(b"0\r\n\r\n")


async def test_a_body_behind_known_lines_is_a_body() -> None:
    """And requests that come together are as many as they are."""
    talk = Talk(echo)
    lines = b"content-length: 2\r\n" + LINES
    for number in range(4):
        assert (await talk.say(numbered(number, b"POST /", lines) + b"ok")).endswith(b"2\r\nok\r\n0\r\n\r\n")
    talk = Talk(greet)
    for _ in range(3):
        await talk.say(numbered(1))
    assert await talk.say(numbered(2) + numbered(3)) == OK * 5
