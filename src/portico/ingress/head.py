"""Heads of requests and responses: what is kept, what is dropped, what is written anew.

What belongs to one hop (RFC 9110, 7.6.1) is never passed on; message framing is written from what was understood.
Names that the ingress sets itself are dropped from what clients send, so that nobody can forge them.
"""

from __future__ import annotations

import re
from typing import Final

from portico.core.bucket import TokenBucket
from portico.wire.memory import Memory

MAX_HEAD: Final = 64 * 1024
LONG: Final = 256 * 1024  # bytes of a body whose length is known, from which on it is counted instead of parsed

_HOP: Final = frozenset(
    [b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"]
)
_FORWARDED: Final = frozenset([b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"])
_FORGEABLE: Final = _FORWARDED | {
    b"x-portico-input",
    b"x-portico-held",
    b"x-request-id",
    b"x-forwarded-port",
    b"forwarded",
    b"x-real-ip",
}
_CREDENTIALS: Final = frozenset([b"modal-key", b"modal-secret", b"authorization", b"proxy-authorization"])
REQUEST_SPECIAL: Final = (
    _HOP | _FORGEABLE | _CREDENTIALS | {b"host", b"content-length", b"accept", b"prefer", b"cookie"}
)
RESULT_PARAMETER: Final = b"__modal_function_call_id="  # in the query of a result's URL
RESPONSE_SPECIAL: Final = _HOP | {b"content-length", b"date", b"set-cookie", b"x-portico-held", b"x-request-id"}

_FOREIGN_OPENING: Final = (
    b"x-request-id: %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n"
)

_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_KEPT: Final = frozenset([b"close", b"keep-alive", b"upgrade", b"host", b""])
_HOST = re.compile(r"([a-z0-9_-](?:[a-z0-9_.-]*[a-z0-9_-])?|\[[a-z0-9:.]+\])\.?(?::([0-9]{0,5}))?")
_HIGHEST_PORT: Final = 65_535
_DIGITS: Final = 9  # of a number of hops that is worth counting down
# A head that comes again, byte for byte, is not parsed again. Not remembered: what is long, and what may be secret.
_SHORT: Final = 4 * 1024  # bytes
_METHODS: Final = frozenset([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"])  # what counts hops changes heads
_PLAIN: Final = b"-._~!$&'()*+,;=:@/?%" + bytes(c for c in range(128) if chr(c).isalnum())  # in targets
_VERSION: Final = b" HTTP/1.1\r\n"
_END: Final = b"\r\n\r\n"

# A proxy token as a bearer token. Nobody else's looks like it, so it is taken out whether it is valid or not.
_PROXY_TOKEN = re.compile(rb"bearer +(wk-[a-z0-9]{22})\.(ws-[a-z0-9]{22})", re.IGNORECASE)


class RequestHead:
    """The head of one request, collected line by line as the parser reports it.

    key and secret: the proxy token that came with it; user code never sees one. bucket: the token's own rate limit.
    """

    __slots__ = (
        "_accept",
        "_joined",
        "bucket",
        "connection",
        "content_length",
        "forwarded",
        "hosts",
        "key",
        "lines",
        "method",
        "prefers_async",
        "private",
        "secret",
        "size",
        "target",
        "transfer_coding",
        "upgrade",
        "version",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version = ""
        self.lines: list[bytes] = []
        self.hosts: list[bytes] = []
        self.connection: list[bytes] = []
        self.content_length: int | None = None
        self.transfer_coding: bytes | None = None
        self.upgrade: list[bytes] = []
        self.key: bytes | None = None
        self.secret: bytes | None = None
        self.bucket: TokenBucket | None = None
        self.prefers_async = False
        self.forwarded: list[tuple[bytes, bytes]] = []  # what the sender says about others; only for those who trust it
        self._accept = b""
        self.private = False  # what it has is not to be remembered
        self._joined = b""  # the lines in one piece, where it is a repetition
        self.size = 0

    def again(self, method: bytes, target: bytes) -> RequestHead:
        """The same header lines behind another request line."""
        head = RequestHead.__new__(RequestHead)
        head.method = method
        head.target = target
        head.lines = self.lines
        head.hosts = self.hosts
        head.connection = []
        head.version = "1.1"
        head.upgrade = []
        head.content_length = head.transfer_coding = head.key = head.secret = head.bucket = None
        head.prefers_async = self.prefers_async
        head.private = False
        head.forwarded = self.forwarded
        head._accept = self._accept
        head._joined = self._joined
        head.size = self.size + len(target)
        return head

    @property
    def may_be_repeated(self) -> bool:
        """Whether all there is to it is a request line and lines that mean the same behind any other."""
        special = self.private or self.has_framing or self.upgrade or self.forwarded
        usual = len(self.hosts) == 1 and self.connection in ([], [b"keep-alive"])
        return usual and not special and self.target[:1] == b"/"

    def pattern(self) -> RequestHead:
        """What repetitions are made from."""
        pattern = self.again(b"", b"")
        pattern.size -= len(self.target)
        pattern.lines = list(self.lines)
        pattern._joined = b"".join(self.lines)
        return pattern

    def header(self, name: bytes, value: bytes) -> None:
        """One more header line."""
        self.size += len(name) + len(value) + 4
        lower = name.lower()
        if lower not in REQUEST_SPECIAL:
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif lower == b"host":
            value = value.strip()
            self.hosts.append(value)
            self.lines.append(b"host: %b\r\n" % value)
        elif lower == b"accept":
            self._accept += value
            self.lines.append(b"accept: %b\r\n" % value)
        elif lower == b"prefer":
            self.prefers_async = self.prefers_async or b"respond-async" in value.lower()
            self.lines.append(b"prefer: %b\r\n" % value)
        elif lower == b"cookie":
            self.private = True
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif lower == b"content-length":
            self.content_length = int(value)  # the parser takes nothing but digits, and the space around them
        elif lower == b"transfer-encoding":
            self.transfer_coding = (
                self.transfer_coding + b"," if self.transfer_coding else b""
            ) + value.strip().lower()
        elif lower == b"connection":
            self.connection += [token.strip().lower() for token in value.split(b",")]
        elif lower == b"upgrade":
            self.upgrade += [token.strip().lower() for token in value.split(b",")]
        elif lower in _FORWARDED:
            self.forwarded.append((lower, value))
        elif lower in _CREDENTIALS:
            self._credentials(lower, name, value)

    def _credentials(self, lower: bytes, name: bytes, value: bytes) -> None:
        self.private = True
        if lower == b"modal-key":
            self.key = value.strip() if self.key is None else b""  # two are none
        elif lower == b"modal-secret":
            self.secret = value.strip() if self.secret is None else b""
        elif lower == b"authorization":
            token = _PROXY_TOKEN.fullmatch(value.strip())
            if token is None:
                self.lines.append(b"%b: %b\r\n" % (name, value))
            elif self.key is None and self.secret is None:
                self.key, self.secret = token.groups()

    def said(self, name: bytes) -> list[bytes]:
        """The items of a header of proxies, in order; those that are empty do not count."""
        values = [value for found, value in self.forwarded if found == name]
        return [item.strip() for value in values for item in value.split(b",") if item.strip()]

    def replace_host(self, host: bytes) -> None:
        """Another Host header instead of what came."""
        self.hosts = [host]
        self._joined = b""
        self.lines = [line for line in self.lines if not line.startswith(b"host: ")] + [b"host: %b\r\n" % host]

    def locate(self) -> bool:
        """Bring the target into origin form; whether it can be. An absolute form replaces the Host header."""
        if b"#" in self.target:  # some programs would cut a path there, others would not
            return False
        if self.target[:1] == b"/" or (self.target == b"*" and self.method == b"OPTIONS"):
            return True
        scheme, separator, rest = self.target.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https") or host_of(self.hosts[0]) is None:
            return False
        authority, slash, path = rest.partition(b"/")
        authority, question, query = authority.partition(b"?")
        if slash or question or self.method != b"OPTIONS":
            self.target = b"/" + path if slash else b"/" + question + query
        else:
            self.target = b"*"  # RFC 9112, 3.2.4
        self.replace_host(authority)
        return host_of(authority) is not None

    def travel(self) -> bool:
        """Count Max-Forwards down; whether the request may go further (RFC 9110, 7.6.2)."""
        value = self.find(b"max-forwards")
        if value is None or not value.isdigit() or len(value) > _DIGITS:
            return True
        left = int(value) - 1
        if left >= 0:
            self.lines = [line for line in self.lines if not line.lower().startswith(b"max-forwards:")]
            self.lines.append(b"max-forwards: %d\r\n" % left)
        return left >= 0

    @property
    def wants_desk(self) -> bool:
        """Whether it is to be stored and answered later, or asks for the answer to one that was."""
        return (self.prefers_async or RESULT_PARAMETER in self.target) and not self.is_websocket

    @property
    def wants_json(self) -> bool:
        """Whether the client asked for JSON."""
        return b"application/json" in self._accept.lower()

    def find(self, name: bytes) -> bytes | None:
        """The value of a header that is passed on. A search: not for every request."""
        for line in self.lines:
            found, _, value = line.partition(b":")
            if found.lower() == name:
                return value.strip()
        return None

    @property
    def is_preflight(self) -> bool:
        """Whether a browser asks for a page of another origin if it may send a request."""
        return self.method == b"OPTIONS" and all(map(self.find, (b"origin", b"access-control-request-method")))

    @property
    def is_websocket(self) -> bool:
        """Whether it asks to become a WebSocket."""
        return b"websocket" in self.upgrade and self.method == b"GET" and b"upgrade" in self.connection

    @property
    def has_framing(self) -> bool:
        """Whether it says something about a body, be it that there is none."""
        return self.transfer_coding is not None or self.content_length is not None

    @property
    def has_body(self) -> bool:
        """Whether a body follows it."""
        return self.transfer_coding is not None or bool(self.content_length)

    def render(self, input_id: bytes, client: bytes, *, chunked: bool, foreign: bool) -> bytes:
        """The head as the container gets it; the header of our own comes first. A foreign program gets those it knows.

        client: its address, its port, and the scheme that it used.
        """
        self.lines = without(self.connection, self.lines)
        opening = opening_lines(input_id, client, self.hosts[0], foreign=foreign)
        if self._joined:
            return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (self.method, self.target, opening, self._joined)
        parts = [b"%b %b HTTP/1.1\r\n" % (self.method, self.target), opening, *self.lines]
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        elif self.content_length is not None:
            parts.append(b"content-length: %d\r\n" % self.content_length)
        if self.is_websocket:
            parts.append(b"connection: upgrade\r\nupgrade: websocket\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)


class ResponseHead:
    """The head of one response."""

    __slots__ = (
        "connection",
        "content_length",
        "dated",
        "held",
        "lines",
        "private",
        "reason",
        "transfer_coding",
        "upgrade",
    )

    def __init__(self) -> None:
        self.reason = b""
        self.lines: list[bytes] = []
        self.connection: list[bytes] = []
        self.content_length: int | None = None
        self.transfer_coding: bytes | None = None
        self.held = False
        self.private = False  # as `RequestHead.private`
        self.dated = False
        self.upgrade: bytes | None = None

    def header(self, name: bytes, value: bytes) -> None:
        """One more header line."""
        lower = name.lower()
        if lower not in RESPONSE_SPECIAL:
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif lower == b"content-length":
            self.content_length = int(value)
        elif lower == b"transfer-encoding":
            self.transfer_coding = value.strip().lower() if self.transfer_coding is None else b"several"
        elif lower == b"x-portico-held":
            self.held = True
        elif lower == b"set-cookie":
            self.private = True
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif lower == b"date":
            self.dated = True
            self.lines.append(b"date: %b\r\n" % value)
        elif lower == b"connection":
            self.connection += [token.strip().lower() for token in value.split(b",")]
        elif lower == b"upgrade":
            self.upgrade = value.strip().lower()

    def check(self, status: int) -> None:
        """Raises ValueError when it is none, or clients could understand it in several ways."""
        if status < 100 or (self.reason != b"OK" and not _REASON.fullmatch(self.reason)):
            raise ValueError
        if self.transfer_coding is not None and (self.transfer_coding != b"chunked" or status < 200):
            raise ValueError

    def render(self, status: int, request_id: bytes, date: bytes, framing: bytes) -> bytes:
        """The head as the client gets it. `framing` are the lines about length and connection."""
        return b"HTTP/1.1 %d %b\r\n%b%b%bx-request-id: %b\r\n\r\n" % (
            status,
            self.reason,
            b"".join(without(self.connection, self.lines)),
            b"" if self.dated else date,
            framing,
            request_id,
        )


def without(connection: list[bytes], lines: list[bytes]) -> list[bytes]:
    """The lines but for those that Connection names as belonging to one hop. Without Host there would be no request."""
    if not connection or not (named := set(connection) - _KEPT):
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in named]


class Answer:
    """A response's head that comes again and again, as clients get it when its body comes with it."""

    __slots__ = ("closing", "head", "length", "opening")

    def __init__(self, status: int, head: ResponseHead, length: int) -> None:
        self.head = head
        self.length = length
        self.opening = b"HTTP/1.1 %d %b\r\n%b" % (status, head.reason, b"".join(head.lines))
        self.closing = b"content-length: %d\r\nx-request-id: " % length

    def render(self, request_id: bytes, date: bytes, body: bytes) -> bytes:
        """The response as `ResponseHead.render` would have it, and its body."""
        date = b"" if self.head.dated else date
        return b"%b%b%b%b\r\n\r\n%b" % (self.opening, date, self.closing, request_id, body)


def repeated(memory: Memory[RequestHead], data: bytes) -> RequestHead | None:
    """The head that these bytes are, if its lines are known and no body follows. Heads that are known never change."""
    if head := memory.known.get(data):
        return head
    line, _, block = data.partition(_VERSION)
    pattern = memory.known.get(block)
    if pattern is None:
        return None
    method, _, target = line.partition(b" ")
    if method not in _METHODS or target[:1] != b"/" or target.translate(None, _PLAIN):
        return None
    head = pattern.again(method, target)
    if memory.has_seen(data):
        memory.learn(data, head)
    return head


def learn_request(memory: Memory[RequestHead], data: bytes, head: RequestHead) -> None:
    """These bytes are this head, and nothing else: remember its lines, if they come for the second time."""
    if len(data) > _SHORT or head.method not in _METHODS or data.find(_END) != len(data) - len(_END):
        return
    block = data.partition(_VERSION)[2]
    if block and head.may_be_repeated and memory.has_seen(block):
        memory.learn(block, head.pattern())


def learn_answer(memory: Memory[Answer], status: int, data: bytes, head: ResponseHead) -> None:
    """These bytes are a whole response with this head: remember it, if it comes for the second time."""
    block, _, body = data.partition(_END)
    special = head.private or head.transfer_coding or head.connection or head.upgrade or status in (204, 304)
    if special or len(block) > _SHORT or head.content_length != len(body):
        return
    if memory.has_seen(block):
        memory.learn(block, Answer(status, head, len(body)))


def opening_lines(input_id: bytes, client: bytes, host: bytes, *, foreign: bool) -> bytes:
    """The header lines that a container gets of us. client: its address, its port, and the scheme that it used."""
    if not foreign:
        return b"x-portico-input: %b %b\r\n" % (input_id, client)
    address, _, scheme = client.split(b" ")
    return _FOREIGN_OPENING % (input_id, address, scheme, host)


def host_of(value: bytes) -> str | None:
    """The host name of a Host header: lower-case, without port and final dot; None when it is none."""
    try:
        host = value.strip().decode("ascii").lower()
    except UnicodeDecodeError:
        return None
    found = _HOST.fullmatch(host)
    return found[1] if found is not None and int(found[2] or 0) <= _HIGHEST_PORT else None
