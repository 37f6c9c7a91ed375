"""Containers that are hostile or sloppy: what is no sound response is a 502, and their connection is not used again."""

from __future__ import annotations

import pytest

from portico.ingress.head import MAX_HEAD
from portico.ingress.upstream import MOST_INTERIM
from tests.fuzz.memory import Line, Memory
from tests.fuzz.targets import answer, cut

GET = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi"
UPGRADE = b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 2\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"


def respond(request: bytes, response: bytes, *, foreign: bool = False) -> tuple[Memory, Line]:
    """What becomes of a request whose container says this in one piece."""
    memory = Memory(foreign=foreign)
    memory.client.arrive(request)
    _, line = memory.upstreams[0]
    line.arrive(response)
    return memory, line


def is_garbage(request: bytes, response: bytes) -> None:
    """A 502 with an id, whether it comes in one piece or byte by byte; the client's connection goes on."""
    for pieces in ([response], cut(response, 0), cut(response, 2)):
        answered = answer(request, pieces, ends=False)
        assert (answered.status, answered.ends, answered.reused) == (502, ("broken",), False)
    memory, line = respond(request, response)
    assert line.aborted
    head, _, body = bytes(memory.client.written).partition(b"\r\n\r\n")
    assert head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0] in body
    assert not memory.client.ended


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\x00\x01\x02\x03\x04",
        b"<html>hello</html>",
        b"HTTP/1.1 1000 X\r\n" + LENGTH + b"\r\nok",
        b"HTTP/1.1 2x0 X\r\n" + LENGTH + b"\r\nok",
        b"HTTP/1.1 099 X\r\n" + LENGTH + b"\r\nok",
        b"HTTP/1.1 000 X\r\n" + LENGTH + b"\r\nok",
        b"HTTP/1.1 200 O\0K\r\n" + LENGTH + b"\r\nok",
        b"HTTP/1.1 200 \x1b[0m\r\n" + LENGTH + b"\r\nok",
        GET,
    ],
)
def test_what_is_no_response_is_a_502(response: bytes) -> None:
    """With an id."""
    is_garbage(GET, response)


@pytest.mark.parametrize(
    "headers",
    [
        LENGTH + b"Content-Length: 3\r\n",
        LENGTH + LENGTH,
        b"Content-Length: 2, 2\r\n",
        b"Content-Length: -2\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        LENGTH + CHUNKED,
        CHUNKED + LENGTH,
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        CHUNKED + CHUNKED,
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: \r\n" + LENGTH,
    ],
)
def test_a_response_with_two_lengths_or_other_codings_is_a_502(headers: bytes) -> None:
    """Clients would cut it at different places."""
    is_garbage(GET, OK + headers + b"\r\n2\r\nok\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        b"X: a\n",
        b"X: a\nSet-Cookie: b\r\n",
        b"X: a\rSet-Cookie: b\r\n",
        b"X: a\0b\r\n",
        b"X: a\x08\r\n",
        b"X: a\r\n b\r\n",
        b"X : a\r\n",
        b"X\r\n",
    ],
)
def test_a_response_cannot_be_split(lines: bytes) -> None:
    """Bare CR and LF, folded lines, control characters, white space before the colon."""
    is_garbage(GET, OK + lines + LENGTH + b"\r\nok")


@pytest.mark.parametrize("size", [b"-2", b"x", b"+2", b"2 ", b"", b"2\n", b"10000000000000002"])
def test_a_response_with_a_chunk_that_is_none_does_not_look_whole(size: bytes) -> None:
    """The client's connection breaks: its answer has begun."""
    stream = OK + CHUNKED + b"\r\n2\r\nok\r\n%b\r\nok\r\n0\r\n\r\n" % size
    for pieces in ([stream], cut(stream, 0)):
        answered = answer(GET, pieces, ends=False)
        assert (answered.status, answered.aborted, answered.reused) == (None, True, False)
        assert answered.ends == ("broken",)


def test_a_program_that_answers_garbage_is_not_replaced() -> None:
    """Another one of it would answer the same."""
    memory, line = respond(GET, b"220 mail.example ESMTP\r\n", foreign=True)
    assert memory.client.written.startswith(b"HTTP/1.1 502 ")
    assert memory.ends == ["release"]
    assert line.aborted


# -- bodies that nobody expects ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("request_bytes", "response"),
    [
        (HEAD, OK + LENGTH + b"\r\nok"),
        (HEAD, OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n"),
        (HEAD, OK + b"\r\nok"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\nok"),
        (GET, b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"\r\nok"),
        (GET, b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\nok"),
    ],
)
@pytest.mark.parametrize("foreign", [False, True])
def test_a_body_where_there_is_none_is_dropped(request_bytes: bytes, response: bytes, foreign: bool) -> None:
    """The client gets the head; the container's connection is not used again."""
    memory, line = respond(request_bytes, response, foreign=foreign)
    assert bytes(memory.client.written).endswith(b"\r\n\r\n")
    assert memory.client.written.count(b"HTTP/1.1 ") == 1
    assert not memory.client.ended
    assert line.aborted
    assert memory.ends == ["release"]


def test_a_body_of_a_head_request_that_comes_late_answers_nobody() -> None:
    """Many programs send one; so their connection is not used again after HEAD, whether it has come or not."""
    memory, line = respond(HEAD, OK + LENGTH + b"\r\n", foreign=True)
    assert line.aborted
    memory.client.arrive(GET)
    assert len(memory.upstreams) == 2


@pytest.mark.parametrize(
    ("status", "headers", "framing"),
    [
        (204, LENGTH, b""),
        (204, CHUNKED, b""),
        (304, LENGTH, b"content-length: 2\r\n"),
        (304, CHUNKED, b""),
    ],
)
def test_a_status_without_a_body_has_no_framing(status: int, headers: bytes, framing: bytes) -> None:
    """But for the length that a 304 tells of."""
    memory, _ = respond(GET, b"HTTP/1.1 %d X\r\n%b\r\n" % (status, headers))
    written = bytes(memory.client.written).lower()
    assert written.count(b"content-length") + written.count(b"transfer-encoding") == bool(framing)
    assert framing in written


@pytest.mark.parametrize(
    "extra", [b"EXTRA", OK + LENGTH + b"\r\nno", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n" + OK + LENGTH + b"\r\nno"]
)
@pytest.mark.parametrize("head", [OK + LENGTH, OK + LENGTH + b"Connection: close\r\n", OK + CHUNKED])
def test_what_follows_a_response_belongs_to_nobody(head: bytes, extra: bytes) -> None:
    """A second response in the same read, say: the next request is asked on another connection."""
    body = b"2\r\nok\r\n0\r\n\r\n" if CHUNKED in head else b"ok"
    memory, line = respond(GET, head + b"\r\n" + body + extra)
    written = bytes(memory.client.written)
    assert written.count(b"HTTP/1.1 ") == 1
    assert b"no" not in written.partition(b"\r\n\r\n")[2]
    assert line.aborted
    memory.client.arrive(GET)
    assert len(memory.upstreams) == 2


def test_what_a_container_says_out_of_turn_ends_its_connection() -> None:
    """Nobody has asked."""
    memory, line = respond(GET, OK + LENGTH + b"\r\nok")
    line.arrive(OK + LENGTH + b"\r\nno")
    assert line.aborted
    assert b"no" not in memory.client.written.partition(b"\r\n\r\n")[2]
    memory.client.arrive(GET)
    assert len(memory.upstreams) == 2


# -- interim responses ------------------------------------------------------------------------------------------------
def test_interim_responses_are_passed_on_without_what_belongs_to_one_hop() -> None:
    """103, say; the response that counts comes after them."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
    memory, _ = respond(GET, hints + b"HTTP/1.1 102 Processing\r\n\r\n" + OK + LENGTH + b"\r\nok")
    assert memory.client.written.startswith(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n"
    )


def test_a_client_of_http_1_0_gets_no_interim_responses() -> None:
    """It would take one for the answer."""
    request = GET.replace(b"1.1", b"1.0")
    memory, _ = respond(request, b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + LENGTH + b"\r\nok")
    assert memory.client.written.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_flood_of_interim_responses_ends() -> None:
    """At a thousand."""
    memory, line = respond(GET, b"HTTP/1.1 102 Processing\r\n\r\n" * (MOST_INTERIM + 1))
    assert b"HTTP/1.1 502 " in memory.client.written
    assert line.aborted


@pytest.mark.parametrize("headers", [CHUNKED, b"Transfer-Encoding: gzip\r\n"])
def test_an_interim_response_has_no_body(headers: bytes) -> None:
    """What follows would reach the client in front of the head that counts."""
    is_garbage(GET, b"HTTP/1.1 199 X\r\n%b\r\n2\r\nok\r\n0\r\n\r\n" % headers + OK + LENGTH + b"\r\nok")


# -- switching protocols ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("request_bytes", "response"),
    [
        (GET, SWITCH + b"Upgrade: websocket\r\n\r\n"),
        (POST, SWITCH + b"Upgrade: websocket\r\n\r\n"),
        (
            GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
            SWITCH + b"Upgrade: h2c\r\n\r\n",
        ),
        (UPGRADE, SWITCH + b"Upgrade: h2c\r\n\r\n"),
        (UPGRADE, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (UPGRADE, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    ],
    ids=["to a GET", "to a POST", "to an offer that was not passed on", "to another one", "to nothing", "half"],
)
def test_a_switch_that_nobody_asked_for_is_a_502(request_bytes: bytes, response: bytes) -> None:
    """No bytes pass by unseen."""
    memory, line = respond(request_bytes, response)
    assert memory.client.written.startswith(b"HTTP/1.1 502 ")
    assert memory.ends == ["broken"]
    assert line.aborted


def test_a_switch_has_no_length() -> None:
    """What follows is frames."""
    memory, line = respond(UPGRADE, SWITCH + b"Upgrade: WebSocket\r\nContent-Length: 2\r\n\r\n\x81\x02hi")
    head, _, frames = bytes(memory.client.written).partition(b"\r\n\r\n")
    assert b"content-length" not in head.lower()
    assert b"upgrade: websocket" in head
    assert frames == b"\x81\x02hi"
    assert not line.aborted


# -- how much ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "response",
    [
        OK + b"X: " + b"a" * 2 * MAX_HEAD,
        OK + b"X: " + b"a" * 2 * MAX_HEAD + b"\r\n" + LENGTH + b"\r\nok",
        OK + b"X: a\r\n" * (MAX_HEAD // 3),
        b"HTTP/1.1 200 " + b"a" * 2 * MAX_HEAD,
        b"\r\n" * 2 * MAX_HEAD,
    ],
    ids=["a header", "a whole one", "headers", "a reason", "nothing"],
)
@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_a_head_without_end_is_a_502(response: bytes, size: int) -> None:
    """At 64 KiB."""
    memory = Memory()
    memory.client.arrive(GET)
    _, line = memory.upstreams[0]
    for at in range(0, len(response), size):
        line.arrive(response[at : at + size])
    assert memory.client.written.startswith(b"HTTP/1.1 502 ")
    assert line.aborted


@pytest.mark.parametrize("ending", [b"0\r\n" + b"X: a\r\n", b"0\r\nX: ", b"2;"])
def test_what_has_no_end_behind_a_body_is_cut(ending: bytes) -> None:
    """Trailers, or the extension of a chunk: the answer has begun, so it must not look whole."""
    memory, line = respond(GET, OK + CHUNKED + b"\r\n2\r\nok\r\n" + ending)
    for _ in range(80):
        line.arrive(b"X: a\r\n" * 170 if ending.endswith(b"\n") else b"a" * 1000)
    assert line.aborted
    assert memory.client.aborted


def test_trailers_do_not_become_headers() -> None:
    """Nor do they hold a slot."""
    memory, _ = respond(GET, OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\nX-Portico-Held: 1\r\n\r\n")
    assert b"Set-Cookie" not in memory.client.written
    assert memory.client.written.endswith(b"2\r\nok\r\n0\r\n\r\n")
    assert memory.ends == ["release"]


def test_headers_of_one_hop_end_here() -> None:
    """Those that Connection names, too."""
    memory, _ = respond(
        GET,
        OK + LENGTH + b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTrailer: X\r\nTE: a\r\n"
        b"Proxy-Connection: a\r\nUpgrade: h2c\r\nX-Mine: 1\r\n\r\nok",
    )
    head = bytes(memory.client.written).lower()
    for name in (b"connection", b"x-hop", b"keep-alive", b"trailer", b"te", b"proxy-connection", b"upgrade"):
        assert b"\r\n%b:" % name not in head
    assert b"\r\nx-mine: 1\r\n" in head


def test_a_length_is_written_anew() -> None:
    """Without spaces and zeros."""
    memory, _ = respond(GET, OK + b"Content-Length: \t002 \r\n\r\nok")
    assert b"\r\ncontent-length: 2\r\n" in memory.client.written


# -- the end ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_response_without_a_length_ends_with_its_connection(version: bytes) -> None:
    """The client gets it in chunks, and keeps its own."""
    memory, line = respond(GET, b"HTTP/%b 200 OK\r\n\r\nhello" % version)
    line.arrive(b" world")
    line.arrive(b"")
    assert bytes(memory.client.written).endswith(b"\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    assert not memory.client.ended
    assert memory.ends == ["release"]


RESPONSES = OK + CHUNKED + b"X: y\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("at", range(len(RESPONSES) + 1))
@pytest.mark.parametrize("request_bytes", [GET, POST])
def test_a_container_that_leaves_amid_a_response_leaves_no_half_of_one(at: int, request_bytes: bytes) -> None:
    """At any byte: a whole answer, another attempt or a 502, or a broken connection."""
    memory = Memory()
    memory.client.arrive(request_bytes)
    for _, line in memory.upstreams:  # more of them come, while the request may be sent again
        if at:
            line.arrive(RESPONSES[:at])
        line.arrive(b"")
    written = bytes(memory.client.written)
    whole = written.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert whole == (at == len(RESPONSES))
    assert whole or memory.client.aborted or written.startswith(b"HTTP/1.1 502 ")
    assert (
        memory.given == len(memory.ends) == (4 if written.startswith(b"HTTP/1.1 502 ") and request_bytes == GET else 1)
    )
