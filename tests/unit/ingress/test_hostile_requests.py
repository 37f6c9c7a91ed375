"""Requests that two programs could understand in two ways are refused; what is passed on is what was understood.

Each case is sent whole, byte by byte, and cut at some places. The container is an HTTP server with another parser.
"""

from __future__ import annotations

import pytest

from portico.ingress import pages
from portico.ingress.client import PIPELINED
from portico.ingress.head import MAX_HEAD
from tests.fuzz.memory import Memory
from tests.fuzz.targets import Passed, cut, send

HOST = b"Host: app.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


def request(headers: bytes = b"", body: bytes = b"", *, method: bytes = b"POST", target: bytes = b"/") -> bytes:
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method, target, HOST, headers, body)


def played(stream: bytes) -> Passed:
    """What becomes of it, however it is cut."""
    whole = send([stream])
    for how in (0, 1, 2, 3, 4):
        assert send(cut(stream, how)) == whole
    return whole


def refused(stream: bytes, *statuses: int) -> None:
    """Nothing reaches a container, not even what is behind it; the client learns why, and has to connect again."""
    assert played(stream + SMUGGLED) == Passed((), statuses, closing=True)


def cases(**streams: bytes) -> pytest.MarkDecorator:
    names = [name.replace("_", " ") for name in streams]
    return pytest.mark.parametrize("stream", list(streams.values()), ids=names)


# -- where a body ends ------------------------------------------------------------------------------------------------
@cases(
    CL_TE=request(b"Content-Length: 6\r\n" + CHUNKED, b"0\r\n\r\nG"),
    TE_CL=request(CHUNKED + b"Content-Length: 4\r\n", b"5c\r\nGPOST / HTTP/1.1\r\n"),
    TE_CL_that_agree=request(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"),
    two_lengths=request(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"),
    the_same_length_twice=request(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    a_list_of_lengths=request(b"Content-Length: 5, 5\r\n", b"hello"),
    unknown_coding_and_length=request(b"Transfer-Encoding: x\r\nContent-Length: 5\r\n", b"hello"),
    no_coding_and_length=request(b"Transfer-Encoding: \r\nContent-Length: 5\r\n", b"hello"),
)
def test_a_body_with_two_lengths_is_refused(stream: bytes) -> None:
    """Request smuggling begins where two programs believe different ones."""
    refused(stream, 400)


@pytest.mark.parametrize(
    "length",
    [
        b"+5",
        b"-5",
        b"0x5",
        b"5 5",
        b"5;",
        b"1_0",
        b"",
        b"\x0b5",
        b"5\x0c",
        b"99999999999999999999999",
        b"18446744073709551621",
    ],
)
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    """Digits, and not more than anybody can count."""
    refused(request(b"Content-Length: %b\r\n" % length, b"hello"), 400)


@pytest.mark.parametrize("length", [b"005", b"5 ", b" \t5\t ", b"5"])
def test_a_length_is_written_anew(length: bytes) -> None:
    """Without what other programs could take for something else."""
    memory = Memory()
    memory.client.arrive(request(b"Content-Length: %b\r\n" % length, b"hello"))
    assert b"\r\ncontent-length: 5\r\n\r\nhello" in memory.upstreams[0][1].written


@pytest.mark.parametrize(
    "coding", [b"xchunked", b"identity", b", chunked", b'"chunked"', b"chunked;q=1", b"gzip, chunked"]
)
def test_a_transfer_coding_other_than_chunked_is_501(coding: bytes) -> None:
    """It could not be passed on as it was meant."""
    refused(request(b"Transfer-Encoding: %b\r\n" % coding, b"0\r\n\r\n"), 501)


@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: chunked, chunked\r\n",
        CHUNKED + CHUNKED,
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: \r\n" + CHUNKED,
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
    ],
)
def test_a_transfer_coding_that_is_said_strangely_is_refused(lines: bytes) -> None:
    """Whoever sends it wants two programs to disagree."""
    refused(request(lines, b"0\r\n\r\n"), 400)


def test_http_1_0_has_no_transfer_codings() -> None:
    """Its framing is faulty then."""
    refused(b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n", 400)


def test_the_name_of_the_coding_has_no_case() -> None:
    """CHUNKED is chunked."""
    stream = request(b"Transfer-Encoding: CHUNKED\r\n", b"5\r\nhello\r\n0\r\n\r\n")
    assert played(stream).requests == ((b"POST", b"/", b"hello"),)


@pytest.mark.parametrize(
    "body",
    [
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a\0\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5_\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\n\n",
    ],
)
def test_a_chunk_that_is_none_is_refused(body: bytes) -> None:
    """Also when the container has had a part of the body: it does not get what looks like the rest."""
    refused(request(CHUNKED, body), 400)


@pytest.mark.parametrize("size", [b"5;a=b", b'5;a="b\\"c;d"', b"005", b"0" * 100 + b"5"])
def test_chunks_are_framed_anew(size: bytes) -> None:
    """Extensions and zeros belong to one hop."""
    memory = Memory()
    memory.client.arrive(request(CHUNKED, size + b"\r\nhello\r\n000\r\n\r\n"))
    assert bytes(memory.upstreams[0][1].written).endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


def test_trailers_are_not_passed_on() -> None:
    """Least of all as headers, of this request or the next."""
    memory = Memory()
    stream = request(
        CHUNKED + b"Trailer: X-T\r\n", b"5\r\nhello\r\n0\r\nX-T: 1\r\nAuthorization: x\r\nHost: evil.test\r\n\r\n"
    )
    memory.client.arrive(stream + GET)
    written = bytes(memory.upstreams[0][1].written).lower()
    assert b"x-t" not in written
    assert b"evil" not in written
    assert b"authorization" not in written
    assert played(stream + GET).requests == ((b"POST", b"/", b"hello"), (b"GET", b"/", b""))


@pytest.mark.parametrize("trailer", [b"Content-Length: 5", CHUNKED.strip(), b"X T: 1", b"X: a\nb", b" folded: x"])
def test_trailers_that_are_framing_or_no_headers_are_refused(trailer: bytes) -> None:
    """As in a head."""
    refused(request(CHUNKED, b"5\r\nhello\r\n0\r\n%b\r\n\r\n" % trailer), 400)


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS", b"HEAD"])
def test_a_body_is_a_body_whatever_the_method(method: bytes) -> None:
    """It is not the next request."""
    stream = request(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED, method=method)
    assert played(stream + GET).requests == ((method, b"/", SMUGGLED), (b"GET", b"/", b""))


# -- lines ------------------------------------------------------------------------------------------------------------
@cases(
    all_lines=b"GET / HTTP/1.1\nHost: app.test\n\n",
    request_line=b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    a_header=request(b"X-A: b\nX-B: c\r\n"),
    the_last_line=b"GET / HTTP/1.1\r\n" + HOST + b"\n",
    a_lone_CR=request(b"X-A: b\rX-B: c\r\n"),
    two_CR=request(b"X-A: b\r\r\n"),
    a_lone_CR_at_the_end=b"GET / HTTP/1.1\r\n" + HOST + b"\r\r\n\r\n",
)
def test_a_line_that_does_not_end_in_crlf_is_refused(stream: bytes) -> None:
    """Neither a bare LF nor a bare CR ends a line, or is a part of one."""
    refused(stream, 400)


@cases(
    folded=request(b"X-A: b\r\n c\r\n"),
    folded_by_a_tab=request(b"X-A: b\r\n\t" + CHUNKED),
    folded_length=request(b"Content-Length:\r\n 5\r\n", b"hello"),
    folded_first=b"GET / HTTP/1.1\r\n Host: app.test\r\n" + HOST + b"\r\n",
)
def test_a_folded_line_is_refused(stream: bytes) -> None:
    """obs-fold."""
    refused(stream, 400)


@pytest.mark.parametrize(
    "line", [b"X-A : b", b"X-A\t: b", b": b", b"X-A", b"X\0A: b", b"X-\xe9: b", b"X(A): b", b'"X": b']
)
def test_a_header_whose_name_is_no_token_is_refused(line: bytes) -> None:
    """White space before the colon, too."""
    refused(request(line + b"\r\n"), 400)


@pytest.mark.parametrize("value", [b"a\0b", b"a\x01b", b"a\x7fb", b"\x0b", b"a\x1b[0m"])
def test_a_header_with_control_characters_is_refused(value: bytes) -> None:
    """NUL ends values in some programs."""
    refused(request(b"X-A: %b\r\n" % value), 400)


@pytest.mark.parametrize("line", [b"X-A: a\tb", b"X-A: \xe9\xff", b"X_A: b", b"X-A:", b"X-A: " + b"a" * 60_000])
def test_a_header_that_is_unusual_but_sound_passes(line: bytes) -> None:
    """Byte for byte."""
    memory = Memory()
    memory.client.arrive(request(line + b"\r\n"))
    name, _, value = line.partition(b":")
    assert b"\r\n%b: %b\r\n" % (name, value.strip(b" ")) in memory.upstreams[0][1].written


# -- the first line ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "target",
    [
        b"/\x01",
        b"/\xe9",
        b"/a b",
        b"/a\tb",
        b"/a\0",
        b"/a\x7f",
        b"\\x",
        b"/x#y",
        b"*",
        b"app.test:80",
        b"nowhere",
        b"?x",
    ],
)
def test_a_target_that_is_no_path_is_refused(target: bytes) -> None:
    """Nor one with a fragment: some programs would cut it off, others would not."""
    refused(request(method=b"GET", target=target), 400)


@pytest.mark.parametrize(
    "target",
    [
        b"ftp://app.test/",
        b"http:///x",
        b"http://user:pw@app.test/",
        b"http://evil.test\\@app.test/",
        b"http://app.test:80@evil.test/",
        b"http://app.test:x/",
        b"http://app.test/x#y",
    ],
)
def test_an_absolute_target_that_names_no_host_is_refused(target: bytes) -> None:
    """Or more than that."""
    refused(request(method=b"GET", target=target), 400)


@pytest.mark.parametrize(
    ("method", "target", "path", "host"),
    [
        (b"GET", b"http://other.test/x?y", b"/x?y", b"other.test"),
        (b"GET", b"HTTP://other.test:81?y", b"/?y", b"other.test:81"),
        (b"GET", b"https://other.test", b"/", b"other.test"),
        (b"GET", b"http://[::1]/", b"/", b"[::1]"),
        (b"OPTIONS", b"http://other.test", b"*", b"other.test"),
        (b"OPTIONS", b"http://other.test/", b"/", b"other.test"),
        (b"OPTIONS", b"*", b"*", b"app.test"),
        (b"GET", b"//other.test/x", b"//other.test/x", b"app.test"),
    ],
)
def test_a_target_is_passed_on_as_a_path_and_its_host_as_host(
    method: bytes, target: bytes, path: bytes, host: bytes
) -> None:
    """An absolute one counts more than the Host header; what begins with two slashes is a path."""
    memory = Memory()
    memory.client.arrive(request(method=method, target=target))
    written = bytes(memory.upstreams[0][1].written)
    assert written.startswith(b"%b %b HTTP/1.1\r\n" % (method, path))
    assert written.count(b"\r\nhost: ") == written.count(b"\r\nhost: %b\r\n" % host) == 1


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"app.test, other.test",
        b"app.test other",
        b"u@app.test",
        b"app.test/x",
        b"app.test:x",
        b"app.test:80@evil.test",
        b"app.test:99999",
        b"[::1",
        b"\xff",
        b"app.te\xc2\xb2st",
    ],
)
def test_a_host_header_that_is_no_host_is_refused(host: bytes) -> None:
    """Apps build URLs of it."""
    refused(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host, 400)


@cases(
    none=b"GET / HTTP/1.1\r\n\r\n",
    none_with_an_absolute_target=b"GET http://app.test/ HTTP/1.1\r\n\r\n",
    two=b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    two_with_an_absolute_target=b"GET http://app.test/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    a_bad_one_with_an_absolute_target=b"GET http://app.test/ HTTP/1.1\r\nHost: a b\r\n\r\n",
)
def test_a_request_without_exactly_one_host_is_refused(stream: bytes) -> None:
    """Also where it would not count."""
    refused(stream, 400)


@pytest.mark.parametrize(
    "host", [b"app.test.", b"APP.TEST:80", b"app.test:", b" app.test ", b"127.0.0.1:7777", b"[::1]:7777"]
)
def test_a_host_may_have_a_port_and_a_final_dot(host: bytes) -> None:
    """It reaches the container as it came."""
    memory = Memory()
    memory.client.arrive(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    assert b"\r\nhost: %b\r\n" % host.strip() in memory.upstreams[0][1].written


@pytest.mark.parametrize("target", [b"app.test:80", b"/", b"http://app.test/"])
def test_connect_is_501(target: bytes) -> None:
    """This is no proxy; and what follows would be no HTTP to others."""
    refused(request(method=b"CONNECT", target=target), 501)


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9"])
def test_another_version_is_505(version: bytes) -> None:
    """It would not be understood as it was meant."""
    refused(b"GET / %b\r\n%b\r\n" % (version, HOST), 505)


@cases(
    nonsense=b"NONSENSE\r\n\r\n",
    lower_case=b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    unknown_method=b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    unknown_protocol=b"GET / FTP/1.1\r\n" + HOST + b"\r\n",
    version_1_2=b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    lower_case_version=b"GET / http/1.1\r\n" + HOST + b"\r\n",
    HTTP_2=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    a_space_before=b" GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    a_space_behind=b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    TLS=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
def test_what_is_no_request_line_is_refused(stream: bytes) -> None:
    """With an answer that can be read."""
    refused(stream, 400)


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n", b"\n"])
def test_empty_lines_before_a_request_are_skipped(before: bytes) -> None:
    """Some old clients send one behind a body."""
    assert played(before + GET + before + GET).statuses == (200, 200)


# -- what belongs to one hop ------------------------------------------------------------------------------------------
def forwarded(stream: bytes) -> bytes:
    memory = Memory()
    memory.client.arrive(stream)
    return bytes(memory.upstreams[0][1].written).lower()


def test_what_belongs_to_one_hop_stays_here() -> None:
    """The standard ones, old ones, and those that Connection names, on however many lines."""
    written = forwarded(
        request(
            b"Connection: keep-alive, X-One\r\nconnection: x-two,,TE\r\nX-One: hop\r\nx-two: hop\r\nKeep-Alive: hop\r\n"
            b"Proxy-Connection: hop\r\nTE: hop\r\nTrailer: hop\r\nUpgrade: hop\r\nProxy-Authorization: hop\r\n"
            b"X-Mine: end\r\n"
        )
    )
    assert b"hop" not in written
    assert b"\r\nconnection:" not in written
    assert b"\r\nx-mine: end\r\n" in written


def test_connection_cannot_name_what_a_request_needs() -> None:
    """Its host, its length, and what we say of it."""
    written = forwarded(
        request(
            b"Connection: host, content-length, transfer-encoding, x-portico-input\r\nContent-Length: 5\r\n", b"hello"
        )
    )
    assert b"\r\nhost: app.test\r\n" in written
    assert b"\r\ncontent-length: 5\r\n\r\nhello" in written
    assert b"\r\nx-portico-input: " in written


def test_an_expectation_is_passed_on_and_so_is_the_answer() -> None:
    """100 Continue comes from who reads the body."""
    memory = Memory()
    memory.client.arrive(request(b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
    connection, line = memory.upstreams[0]
    assert b"\r\nExpect: 100-continue\r\n" in line.written
    connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert memory.client.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    memory.client.arrive(b"hello")
    assert line.written.endswith(b"\r\n\r\nhello")


def test_a_refusal_needs_no_body() -> None:
    """A client that waits for 100 Continue is told no at once, and need not send."""
    memory = Memory()
    memory.find = lambda host: pages.INVALID_CALL  # type: ignore[method-assign]
    memory.client.arrive(request(b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
    assert memory.client.written.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nconnection: close\r\n" in memory.client.written


@pytest.mark.parametrize(
    ("method", "left", "status", "passed"),
    [
        (b"OPTIONS", b"0", 200, None),
        (b"TRACE", b"0", 405, None),
        (b"OPTIONS", b"1", 200, b"max-forwards: 0"),
        (b"TRACE", b"10", 200, b"max-forwards: 9"),
        (b"OPTIONS", b"9" * 5000, 200, b"max-forwards: " + b"9" * 5000),
        (b"OPTIONS", b"x", 200, b"max-forwards: x"),
        (b"GET", b"0", 200, b"max-forwards: 0"),
    ],
)
def test_max_forwards_is_counted_down(method: bytes, left: bytes, status: int, passed: bytes | None) -> None:
    """For the two methods that it is for; 0 ends here."""
    stream = request(b"Max-Forwards: %b\r\n" % left, method=method)
    assert send([stream]).statuses == (status,)
    if passed is not None:
        assert b"\r\n%b\r\n" % passed in forwarded(stream)


# -- offers of other protocols ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0, HTTP/2.0"])
@cases(
    length=b"Content-Length: 40\r\n\r\n" + SMUGGLED[:40],
    chunks=CHUNKED + b"\r\n28\r\n" + SMUGGLED[:40] + b"\r\n0\r\n\r\n",
)
def test_the_body_of_a_request_that_offers_another_protocol_is_its_body(protocol: bytes, stream: bytes) -> None:
    """Java's client offers HTTP/2 so, with every first request; the offer is not taken, and the body is no request."""
    head = b"POST /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
    assert played(head + stream + GET).requests == ((b"POST", b"/a", SMUGGLED[:40]), (b"GET", b"/", b""))


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", CHUNKED])
def test_a_websockets_handshake_with_a_body_is_refused(framing: bytes) -> None:
    """Where its frames begin would not be clear."""
    refused(request(UPGRADE + framing, method=b"GET"), 400)


@cases(
    HTTP_1_0=b"GET / HTTP/1.0\r\n" + HOST + UPGRADE + b"\r\n",
    not_GET=request(UPGRADE),
    not_in_Connection=request(b"Upgrade: websocket\r\n", method=b"GET"),
    pipelined=GET + request(UPGRADE, method=b"GET"),
)
def test_what_is_no_handshake_reaches_the_container_as_a_plain_request(stream: bytes) -> None:
    """Without the offer."""
    memory = Memory()
    memory.client.arrive(stream)
    for connection, line in memory.upstreams:
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        assert b"upgrade" not in bytes(line.written).lower()
    assert memory.given == stream.count(b"HTTP/1.")


def test_a_websocket_may_be_one_of_several_offers() -> None:
    """In a list."""
    written = forwarded(request(b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c, WebSocket\r\n", method=b"GET"))
    assert b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n" in written


# -- how much ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"GET /" + b"a" * MAX_HEAD, 414),
        (b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * (MAX_HEAD // 5), 431),
        (request(CHUNKED, b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * (MAX_HEAD // 5)), 400),
        (request(CHUNKED, b"5\r\nhello\r\n0\r\nX: " + b"a" * MAX_HEAD), 400),
        (request(CHUNKED, b"5;" + b"a" * 500_000), 400),
    ],
    ids=["target", "whole target", "header", "headers", "trailers", "trailer", "chunk extension"],
)
@pytest.mark.parametrize("size", [1000, 10_000, 300_000])
def test_what_has_no_end_is_refused(stream: bytes, status: int, size: int) -> None:
    """At 64 KiB, wherever a parser would collect it or nobody would count it."""
    memory = Memory()
    # two reads at least: what the container knows of the body comes before what is wrong with it
    head, end, body = stream.partition(b"hello\r\n")
    for part in (head + end, body):
        for at in range(0, len(part), size):
            memory.client.arrive(part[at : at + size])
    assert memory.client.written.startswith(b"HTTP/1.1 %d " % status)
    assert memory.client.ended
    assert memory.ends == ["cancel"] * memory.given


def test_pipelined_requests_are_answered_in_their_order() -> None:
    """One at a time; refusals of ours in between, too."""
    stream = b"".join(request(method=b"GET", target=b"/%d" % n) for n in range(20))
    passed = played(stream + b"OPTIONS / HTTP/1.1\r\nMax-Forwards: 0\r\n" + HOST + b"\r\n" + GET)
    assert [target for _, target, _ in passed.requests] == [b"/%d" % n for n in range(20)]
    assert passed.statuses == (200,) * 21


def test_only_so_many_requests_wait_for_their_turn() -> None:
    """Those are answered; the client sends the rest again, on another connection."""
    passed = send([GET * (PIPELINED + 500)])
    assert passed.statuses[: PIPELINED + 1] == (200,) * (PIPELINED + 1)
    assert passed.closing


def test_many_refusals_in_a_row_are_no_burden() -> None:
    """Behind an answer that took its time."""
    memory = Memory()
    memory.client.arrive(GET + GET.replace(b"app.test", b"nobody.test") * PIPELINED)
    memory.find = lambda host: pages.INVALID_CALL  # type: ignore[method-assign]
    memory.connection._hosts.forget()
    connection, _ = memory.upstreams[0]
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert memory.client.written.count(b"HTTP/1.1 404 ") == PIPELINED
    assert not memory.client.ended


# -- those who leave --------------------------------------------------------------------------------------------------
STREAM = request(b"Content-Length: 5\r\n", b"hello") + request(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n") + GET


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
@pytest.mark.parametrize("how", ["half-closed", "reset"])
def test_a_client_that_leaves_takes_nothing_with_it(at: int, how: str) -> None:
    """At any byte: a side that is closed has left, as far as anybody can see. Each slot is given back.

    While a request waits for its turn, nothing is read: then the end is seen when it is that one's turn.
    """
    memory = Memory()
    if at:
        memory.client.arrive(STREAM[:at])
    if how == "reset":
        memory.client.abort()
        memory.settle()
    else:
        memory.client.arrive(b"")
        while not memory.client.is_closing():
            memory.upstreams[-1][0].data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            memory.settle()
    assert len(memory.ends) == memory.given
    assert memory.client.is_closing()
    assert not memory.ingress._connections
    assert not len(memory.ingress._wheel)
    assert all(line.is_closing() for _, line in memory.upstreams)


def test_a_long_body_in_small_chunks_passes_both_ways() -> None:
    """What is bounded is what stands between two pieces of it."""
    memory = Memory()
    memory.client.arrive(request(CHUNKED))
    connection, line = memory.upstreams[0]
    connection.data_received(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n")
    for _ in range(300):
        memory.client.arrive(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        line.arrive(b"3e8\r\n" + b"y" * 1000 + b"\r\n")
    assert line.written.count(b"x" * 1000) == memory.client.written.count(b"y" * 1000) == 300
