"""Generated messages, cut anywhere: where reads cut a stream changes nothing of what is understood."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import targets

CUTS = st.integers(0, 255)
NAMES = st.sampled_from(
    [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"X-A"]
)
VALUES = st.sampled_from(
    [
        b"app.test",
        b"0",
        b"5",
        b"5, 5",
        b" 5\t",
        b"chunked",
        b"gzip, chunked",
        b"close",
        b"keep-alive, x-a",
        b"h2c",
        b"",
        b"\xff",
    ]
)
COLONS = st.sampled_from([b":", b": ", b" : ", b":\t"])
ENDS = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\0\r\n"])
LINES = st.builds(b"%b%b%b%b".__mod__, st.tuples(NAMES, COLONS, VALUES, ENDS))
SIZES = st.sampled_from([b"0", b"5", b"05", b"5;a=b", b"5 ", b"a", b"-5", b"ffffffffffffffff", b""])
CHUNKS = st.builds(b"%b%bhello%b".__mod__, st.tuples(SIZES, ENDS, ENDS))
BODIES = st.one_of(
    st.just(b""),
    st.just(b"hello"),
    st.lists(CHUNKS, max_size=3).map(lambda chunks: b"".join(chunks) + b"0\r\n\r\n"),
    st.binary(max_size=20),
)
METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get"])
PATHS = st.sampled_from([b"/", b"/a?b", b"*", b"http://app.test/x", b"app.test:80", b"/#a", b"//a"])
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2.0"])
HEADS = st.lists(LINES, max_size=4).map(lambda lines: b"Host: app.test\r\n" + b"".join(lines))
REQUESTS = st.builds(b"%b %b %b\r\n%b\r\n%b".__mod__, st.tuples(METHODS, PATHS, VERSIONS, HEADS, BODIES))
STATUSES = st.sampled_from(
    [b"200 OK", b"204 No Content", b"304 Not Modified", b"100 Continue", b"101 Switching", b"99 X"]
)
RESPONSES = st.builds(b"%b %b\r\n%b\r\n%b".__mod__, st.tuples(VERSIONS, STATUSES, HEADS, BODIES))


@given(how=CUTS, requests=st.lists(REQUESTS, min_size=1, max_size=4))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_requests_are_understood_alike_however_they_are_cut(how: int, requests: list[bytes]) -> None:
    """And as another parser understands them, wherever both take them."""
    targets.requests(bytes([how]) + b"".join(requests))


@given(how=CUTS, kind=CUTS, responses=st.lists(RESPONSES, min_size=1, max_size=3))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_responses_are_understood_alike_however_they_are_cut(how: int, kind: int, responses: list[bytes]) -> None:
    """And a client reads of them what it would have read without us."""
    targets.responses(bytes([how, kind]) + b"".join(responses))


@given(how=CUTS, limit=CUTS, stream=st.binary(max_size=600))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_frames_are_counted_alike_however_they_are_cut(how: int, limit: int, stream: bytes) -> None:
    """Any bytes at all."""
    targets.frames(bytes([how, limit]) + stream)
