"""A container's side of HTTP/1.1: from the ingress's connection to an ASGI app, with as little around it as that needs.

uvicorn's protocol does the same for any client; ours knows its peer. So no timer for each request (when an idle
connection closes is for the ingress to say), no log of accesses, and one write for a response that is there at once.
What apps see is the same: the scope, the order of messages, the errors that they get.
"""

from __future__ import annotations

import asyncio
import re
import sys
import traceback
from collections import deque
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools

from portico.runtime.asgi import App, Message, Scope
from portico.runtime.guard import AlreadyLogged
from portico.wire.container import INPUT_HEADER
from portico.wire.memory import Memory

HIGH_WATER: Final = 64 * 1024  # bytes of a body that wait for the app before the client is paused
_NAMES: Final = 256  # header names that are remembered as good ones
_BAD_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_FAILED: Final = b"Internal Server Error"
_INVALID: Final = b"Invalid HTTP request received."

_SHORT: Final = 4 * 1024  # bytes of a head that is worth remembering
_VERSION: Final = b" HTTP/1.1"
_INPUT: Final = INPUT_HEADER + b": "
_SPECIAL: Final = frozenset([b"connection", b"content-length", b"expect", b"transfer-encoding", b"upgrade"])

_heads: Memory[tuple[tuple[bytes, bytes], ...]] = Memory()  # headers behind the ingress's own, by their lines
_good_names: dict[bytes, bytes] = {}  # as apps write them -> as they are sent


class HttpProtocol(asyncio.Protocol):
    """One connection, with at most one running request; further requests on it wait their turn.

    state: what the app's lifespan shares with requests. connections, tasks: where it, and what runs, is to be found.
    """

    def __init__(self, app: App, state: dict[str, Any], connections: set[Any], tasks: set[asyncio.Task[None]]) -> None:
        self.app = app
        self.cycle: Cycle | None = None  # the request whose turn it is, or was last
        self.transport = cast("asyncio.Transport", None)
        self.parser = httptools.HttpRequestParser(self)
        self.scope: Scope = {}
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._loop = asyncio.get_running_loop()
        self._state = state
        self._connections = connections
        self._tasks = tasks
        self._address: tuple[str, int | None] | None = None
        self._reading: Cycle | None = None  # the request whose body comes in
        self._later: deque[Cycle] = deque()
        self._between = True  # requests: what comes next begins one
        self._reading_paused = False
        self.full: asyncio.Future[None] | None = None  # until the client has read of what was written
        self._expects_continue = False

    def __repr__(self) -> str:
        return f"<HttpProtocol {self.cycle!r}>"

    # -- the transport's callbacks --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        name = transport.get_extra_info("sockname")
        self._address = (name, None) if isinstance(name, str) else name and name[:2]

    def data_received(self, data: bytes) -> None:
        fresh = self._between and len(data) <= _SHORT
        if fresh and self._repeats(data):
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse()
        else:
            if fresh and self._between:
                self._learn(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._later.clear()
        if self.cycle is not None and not self.cycle.complete:
            self.cycle.disconnected = True
            self.cycle.tell()
        self.resume_writing()

    def eof_received(self) -> None:
        """The transport closes, and `connection_lost` does the rest."""

    def pause_writing(self) -> None:
        self.full = self._loop.create_future()

    def resume_writing(self) -> None:
        full, self.full = self.full, None
        if full is not None and not full.done():
            full.set_result(None)

    # -- the parser's callbacks -----------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._between = False
        self.url = b""
        self.headers = []
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        self.scope = self._new_scope(parser.get_method(), parser.get_http_version())
        if parser.should_upgrade() and self.takes_over():
            self._reading = None
            return
        keep_alive = parser.should_keep_alive()
        self._reading = Cycle(self, self.scope, keep_alive=keep_alive, expects=self._expects_continue)
        self._take(self._reading)

    def _take(self, cycle: Cycle) -> None:
        if self.cycle is None or self.cycle.complete:
            self._start(cycle)
        else:
            self._later.append(cycle)
            self.pause_reading()

    def on_body(self, body: bytes) -> None:
        cycle = self._reading
        if cycle is None or cycle.complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER:
            self.pause_reading()
        cycle.tell()

    def on_message_complete(self) -> None:
        self._between = True
        cycle, self._reading = self._reading, None
        if cycle is not None and not cycle.complete:
            cycle.more_body = False
            cycle.tell()

    # -- for those that know other protocols ----------------------------------------------------------------------
    def takes_over(self) -> bool:
        """Whether this request to upgrade is no request, but the beginning of something else: see `upgraded`."""
        return False

    def upgraded(self, rest: bytes) -> None:
        """The parser stops here. What the client offered is declined: the request was one like any other."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # -- for the cycle --------------------------------------------------------------------------------------------
    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def ended(self, task: asyncio.Task[None] | None) -> None:
        """The app has returned. A callback of the task's would cost a turn of the loop."""
        if task is not None:
            self._tasks.discard(task)

    def completed(self) -> None:
        """A response is written; the next request may begin."""
        self.resume_reading()
        if self._later and not self.transport.is_closing():
            self._start(self._later.popleft())

    # -- for the server -------------------------------------------------------------------------------------------
    def shutdown(self) -> None:
        """Close as soon as no request runs."""
        if self.cycle is None or self.cycle.complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def refuse(self) -> None:
        """What came is no HTTP."""
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_INVALID), _INVALID)
        )
        self.transport.close()

    # -- inside ---------------------------------------------------------------------------------------------------
    def _repeats(self, data: bytes) -> bool:
        """Begin the request that these bytes are, if its header lines are known and no body follows."""
        line, _, rest = data.partition(b"\r\n")
        first, _, block = rest.partition(b"\r\n")
        headers = _heads.known.get(block)
        if headers is None or not line.endswith(_VERSION) or not first.startswith(_INPUT):
            return False
        method, _, self.url = line[: -len(_VERSION)].partition(b" ")
        self.headers = [(INPUT_HEADER, first[len(_INPUT) :]), *headers]
        self.scope = self._new_scope(method, "1.1")
        cycle = Cycle(self, self.scope, keep_alive=True, expects=False)
        cycle.more_body = False
        cycle.tell()
        self._take(cycle)
        return True

    def _learn(self, data: bytes) -> None:
        """These bytes came in whole requests. One that has no body: remember its header lines, when they come again."""
        headers = self.headers
        if data.find(b"\r\n\r\n") != len(data) - 4 or not headers or headers[0][0] != INPUT_HEADER:
            return
        line, _, rest = data.partition(b"\r\n")
        first, _, block = rest.partition(b"\r\n")
        if not line.endswith(_VERSION) or not first.startswith(_INPUT) or len(headers) < 2:
            return
        if _SPECIAL.isdisjoint(name for name, _ in headers) and _heads.has_seen(block):
            _heads.learn(block, tuple(headers[1:]))

    def _new_scope(self, method: bytes, version: str) -> Scope:
        url = self.url
        if url.startswith(b"/"):
            raw_path, _, query = url.partition(b"#")[0].partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path, parsed.query or b""
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self._address,
            "client": None,
            "scheme": "http",
            "method": method.decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": self._state.copy(),
        }

    def _start(self, cycle: Cycle) -> None:
        self.cycle = cycle
        cycle.task = self._loop.create_task(cycle.run(self.app))
        self._tasks.add(cycle.task)


class Cycle:
    """One request and its response: what the app gets as `receive`; itself, it is its `send`."""

    __slots__ = (
        "_chunked",
        "_event",
        "_expects",
        "_head",
        "_joined",
        "_left",
        "_news",
        "_protocol",
        "_scope",
        "_started",
        "body",
        "complete",
        "disconnected",
        "keep_alive",
        "more_body",
        "task",
    )

    def __init__(self, protocol: HttpProtocol, scope: Scope, *, keep_alive: bool, expects: bool) -> None:
        self._protocol = protocol
        self._scope = scope
        self.task: asyncio.Task[None] | None = None
        self.keep_alive = keep_alive
        self._expects = expects  # the client waits for a sign that its body is wanted
        self.body = b""
        self.more_body = True
        self.disconnected = False
        self._news = False  # since the app has received last
        self._event: asyncio.Event | None = None
        self._started = False
        self.complete = False
        self._joined = False  # what is written next goes out with what follows
        self._head = b""
        self._chunked = False
        self._left = 0  # bytes of the body that are still to come

    def __repr__(self) -> str:
        return f"<Cycle {self._scope['method']} {self._scope['path']}{' complete' * self.complete}>"

    def tell(self) -> None:
        """There is something to receive."""
        self._news = True
        if self._event is not None:
            self._event.set()

    async def run(self, app: App) -> None:
        """Let the app answer."""
        try:
            await app(self._scope, self.receive, self)
        except AlreadyLogged:
            self._protocol.transport.close()
        except BaseException:
            traceback.print_exc()
            await self._give_up()
        else:
            if not self.complete and not self.disconnected:
                sys.stderr.write(f"The app has returned without a whole response to {self._scope['path']}.\n")
                await self._give_up()
        finally:
            self._protocol.ended(self.task)

    async def _give_up(self) -> None:
        if self._started or self.disconnected:
            self._protocol.transport.close()
            return
        self.keep_alive = False
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_FAILED))]
        await self({"type": "http.response.start", "status": 500, "headers": headers})
        await self({"type": "http.response.body", "body": _FAILED})

    # -- the app's ------------------------------------------------------------------------------------------------
    async def receive(self) -> Message:
        """As ASGI's receive."""
        if self._expects and not self._protocol.transport.is_closing():
            self._expects = False
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not (self.disconnected or self.complete):
            self._protocol.resume_reading()
            if not self._news:
                if self._event is None:
                    self._event = asyncio.Event()
                await self._event.wait()
            self._news = False
            if self._event is not None:
                self._event.clear()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def join(self) -> None:
        """Whoever sends has the first piece of the body at hand: the head that comes next goes out with it."""
        self._joined = True

    async def __call__(self, message: Message) -> None:
        """As ASGI's send."""
        while (full := self._protocol.full) is not None and not self.disconnected:
            await asyncio.shield(full)  # others may wait for it too
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self._started and not self.complete:
            self._write_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start" and not self._started:
            self._head = self._render(message)
            self._started = True
            self._expects = False
            if not self._joined:
                self._write(b"")
        else:
            state = "is complete" if self.complete else "has begun" if self._started else "has not begun"
            raise self._wrong(f"Unexpected ASGI message {kind!r}: the response {state}.")

    def _render(self, message: Message) -> bytes:
        status = message["status"]
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        framed = closing = False
        for name, value in message.get("headers", ()):
            lower = _good_names.get(name) or _good_name(name)
            if _BAD_VALUE.search(value):
                raise RuntimeError("Invalid HTTP header value.")
            lines += (lower, b": ", value, b"\r\n")
            if lower == b"content-length" and not framed:
                self._left = int(value)
                framed = True
            elif lower == b"transfer-encoding" and value.lower() == b"chunked":
                self._left = 0
                framed = self._chunked = True
            elif lower == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]:
                closing = True
                self.keep_alive = False
        if not self.keep_alive and not closing:
            lines.append(b"connection: close\r\n")
        if self._scope["method"] == "HEAD":
            self._left = 0
        elif not framed and status not in (204, 304):
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _write_body(self, body: bytes, *, more: bool) -> None:
        if self._scope["method"] == "HEAD":
            body = b""
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            if len(body) > self._left:
                raise self._wrong("Response content longer than Content-Length")
            self._left -= len(body)
        if not more and self._left:
            raise self._wrong("Response content shorter than Content-Length")
        self._write(body)
        if not more:
            self.complete = True
            self.tell()
            if not self.keep_alive:
                self._protocol.transport.close()
            self._protocol.completed()

    def _wrong(self, what: str) -> RuntimeError:
        self._write(b"")  # a response that has begun is cut short, for everyone to see
        return RuntimeError(what)

    def _write(self, body: bytes) -> None:
        head, self._head = self._head, b""
        if head or body:
            self._protocol.transport.write(head + body if head else body)


def _good_name(name: bytes) -> bytes:
    if _BAD_NAME.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    if len(_good_names) < _NAMES:
        _good_names[name] = name.lower()
    return name.lower()
