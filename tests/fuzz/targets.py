"""What holds for any bytes. Each target takes an input of the fuzzer: a byte that says how it is cut, then the bytes.

Another parser (h11) stands on the other side, and at its side: what the ingress passes on is what that one reads, too.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import pairwise

import h11

from portico.ingress.head import MAX_HEAD
from portico.wire.websocket import FrameCounter, close_frame
from tests.fuzz.memory import LIMIT, Line, Memory, Origin

_STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)
_REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi",
    b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
)


def cut(data: bytes, how: int) -> list[bytes]:
    """In pieces: 0 is byte by byte, all others are somewhere."""
    if how == 0:
        return [data[at : at + 1] for at in range(len(data))]
    rand = random.Random(how)
    places = sorted({rand.randrange(len(data) + 1) for _ in range(how % 7 + 1)} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places) if a < b]


# -- requests ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Passed:
    """What became of a client's bytes."""

    requests: tuple[tuple[bytes, bytes, bytes], ...]  # whole ones, as containers read them
    statuses: tuple[int, ...]
    closing: bool


def send(pieces: list[bytes]) -> Passed:
    """Have a client send these, in front of containers that answer whatever is a whole request."""
    memory = Memory()
    origins: dict[Line, tuple[Origin, list[int]]] = {}
    everything: list[tuple[bytes, bytes, bytes]] = []

    def serve(line: Line) -> bytes:
        origin, taken = origins.setdefault(line, (Origin(), [0]))
        fresh = bytes(line.written[taken[0] :])
        taken[0] += len(fresh)
        before = len(origin.requests)
        answer = origin.feed(fresh) if fresh else b""
        assert origin.failure is None, (origin.failure, bytes(line.written))
        everything.extend(origin.requests[before:])
        return answer

    memory.serve = serve
    for piece in pieces:
        memory.client.arrive(piece)
    statuses = tuple(int(status) for status in _STATUS.findall(memory.client.written))
    closing = memory.client.ended
    assert len(everything) <= statuses.count(200)
    memory.client.abort()
    memory.settle()
    assert memory.given == len(memory.ends), "a slot was lost"
    return Passed(tuple(everything), statuses, closing)


def requests(data: bytes) -> None:
    """However the bytes are cut, the same requests reach containers, and the same answers the client."""
    if len(data) < 2:
        return
    how, stream = data[0], data[1:]
    whole, parts = send([stream]), send(cut(stream, how))
    # an offer of a WebSocket is passed on unless it is pipelined behind a request that is not answered yet
    assert parts == whole or b"websocket" in stream.lower()
    other = Origin()
    other.feed(stream)
    ours = [(method, target, body) for method, target, body in whole.requests]
    for mine, its in zip(ours, other.requests, strict=False):
        assert mine[0] == its[0]
        assert mine[2] == its[2]
        assert mine[1] == its[1] or not its[1].startswith(b"/")
    if other.failure is None:
        assert len(ours) <= len(other.requests) or b"HTTP/1.0" in stream


# -- responses --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answered:
    """What became of a container's bytes."""

    status: int | None  # of a whole response; None: there is none
    body: bytes
    aborted: bool
    ends: tuple[str, ...]
    reused: bool


def answer(request: bytes, pieces: list[bytes], *, ends: bool) -> Answered:
    """Have a container say these; then it closes, or does not."""
    memory = Memory()
    memory.client.arrive(request)
    for piece in [*filter(None, pieces), *[b""] * ends]:
        if memory.upstreams and not memory.upstreams[0][1].is_closing():
            memory.upstreams[0][1].arrive(piece)
    reused = bool(memory.ingress.upstreams._idle)
    aborted = memory.client.aborted
    status, body = read_answer(request, bytes(memory.client.written), closed=memory.client.ended and not aborted)
    memory.client.abort()
    memory.settle()
    assert memory.given == len(memory.ends), "a slot was lost"
    if aborted:
        status = None
    kept = b"" if status in (None, 502) else body  # ours has an id in it
    return Answered(status, kept, aborted, tuple(memory.ends), reused)


def read_answer(request: bytes, data: bytes, *, closed: bool) -> tuple[int | None, bytes]:
    """The status and body of a whole response among these bytes, as a client reads them. Raises what that raises."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    method, target, _ = request.partition(b"\r\n")[0].split(b" ")
    headers = [("host", "app.test"), *([("content-length", "2")] if method == b"POST" else [])]
    if b"Upgrade" in request:
        headers += [("connection", "upgrade"), ("upgrade", "websocket")]
    client.send(h11.Request(method=method, target=target, headers=headers))
    if method == b"POST":
        client.send(h11.Data(data=b"hi"))
    client.send(h11.EndOfMessage())
    for received in [data] * bool(data) + [b""] * closed:  # b"" is the end
        client.receive_data(received)
    status, body = None, b""
    while type(event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED, h11.ConnectionClosed):
        if isinstance(event, h11.Response) or (
            isinstance(event, h11.InformationalResponse) and event.status_code == 101
        ):
            status = event.status_code
            if status == 101:
                return status, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, body
    return None, b""


def responses(data: bytes) -> None:
    """A client gets the response that any other client would read, or none that looks whole; or a 502."""
    if len(data) < 2:
        return
    how, kind, stream = data[0], data[1], data[2:]
    request, ends = _REQUESTS[kind % len(_REQUESTS)], bool(kind & 0x80)
    whole = answer(request, [stream], ends=ends)
    parts = answer(request, cut(stream, how), ends=ends)
    assert (parts.status, parts.body) == (whole.status, whole.body) or len(stream) > MAX_HEAD
    if whole.status in (None, 502, 101):
        return
    try:
        expected = read_answer(request, stream, closed=ends)
    except h11.RemoteProtocolError:
        return  # the other one is stricter here
    assert (whole.status, whole.body) == expected


# -- frames -----------------------------------------------------------------------------------------------------------
def frames(data: bytes) -> None:
    """Where reads cut a stream of frames changes nothing; what passes is a beginning of it."""
    if len(data) < 2:
        return
    how, limit, stream = data[0], data[1] * 8, data[2:]
    whole, parts = FrameCounter(limit), FrameCounter(limit)
    passed = whole.feed(stream)
    assert b"".join(map(parts.feed, cut(stream, how))) == passed
    assert stream.startswith(passed)
    assert (whole.too_large, whole.closed) == (parts.too_large, parts.closed)
    assert (whole.too_large, len(passed)) == read_frames(stream, limit)
    stopped = FrameCounter(limit)
    middle = len(stream) // 2
    out = stopped.feed(stream[:middle]) + stopped.end(1009) + stopped.feed(stream[middle:])
    assert stream.startswith((out, out.removesuffix(close_frame(1009))))


def read_frames(stream: bytes, limit: int) -> tuple[bool, int]:
    """Whether a message is too large, and how many bytes may pass: written as RFC 6455, 5.2 says it."""
    at = message = extra = 0
    while len(stream) - at >= 2:
        final, compressed, opcode = stream[at] & 0x80, stream[at] & 0x40, stream[at] & 0x0F
        length, header = stream[at + 1] & 0x7F, 2
        if length >= 126:
            header += 2 if length == 126 else 8
            length = int.from_bytes(stream[at + 2 : at + header], "big")
        header += 4 if stream[at + 1] & 0x80 else 0
        if len(stream) - at < header:
            return False, at
        if opcode < 8:
            if opcode:
                extra = limit >> 7 if compressed else 0
            message += length
            if message > limit + extra:
                return True, at
            if final:
                message = extra = 0
        if len(stream) - at < header + length:
            return False, len(stream)
        at += header + length
    return False, at


TARGETS = {"requests": requests, "responses": responses, "frames": frames}
