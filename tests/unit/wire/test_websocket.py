"""Counting WebSocket frames, wherever the reads cut them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portico.wire.websocket import FrameCounter, close_frame

TEXT, BINARY, CONTINUATION, CLOSE, PING = 1, 2, 0, 8, 9


def frame(opcode: int, payload: bytes, *, final: bool = True, masked: bool = False, compressed: bool = False) -> bytes:
    first = opcode | 0x80 * final | 0x40 * compressed
    size, mask = len(payload), 0x80 * masked
    if size < 126:
        head = bytes([first, mask | size])
    elif size < 65536:
        head = bytes([first, mask | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, mask | 127]) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" * masked + payload


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


STREAM = (
    frame(TEXT, b"hello", masked=True)
    + frame(BINARY, b"x" * 300, final=False)
    + frame(PING, b"")
    + frame(CONTINUATION, b"y" * 66_000, masked=True)
    + frame(TEXT, b"")
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 65536, len(STREAM)])
def test_what_is_small_enough_passes_unchanged(size: int) -> None:
    """However it is cut, nothing is lost, added or reordered."""
    counter = FrameCounter()
    passed = b"".join(counter.feed(piece) for piece in pieces(STREAM, size))
    assert passed == STREAM
    assert not counter.too_large
    assert not counter.closed


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("payload", [100, 126, 70_000])
@pytest.mark.parametrize("size", [1, 3, 10_000_000])
def test_a_frame_that_is_too_large_does_not_begin_to_pass(size: int, payload: int, masked: bool) -> None:
    """What was before it does; of its header, not a byte; and nothing of what follows."""
    before, behind = frame(TEXT, b"1234"), frame(TEXT, b"after")
    stream = before + frame(BINARY, b"x" * payload, masked=masked) + behind
    counter = FrameCounter(limit=payload - 1)
    passed = b"".join(counter.feed(piece) for piece in pieces(stream, size))
    assert passed == before
    assert counter.too_large


def test_a_message_is_as_large_as_all_its_frames() -> None:
    """Fragments add up, and control frames between them do not count."""
    counter = FrameCounter(limit=10)
    fitting = frame(TEXT, b"12345", final=False) + frame(PING, b"x" * 100) + frame(CONTINUATION, b"12345")
    assert counter.feed(fitting * 2) == fitting * 2
    first = frame(TEXT, b"12345", final=False)
    assert counter.feed(first + frame(CONTINUATION, b"123456", final=False)) == first
    assert counter.too_large


def test_compression_that_does_not_compress_costs_no_message() -> None:
    """A compressed message may be a little longer on the wire than it is."""
    assert not _is_too_large(frame(BINARY, b"x" * 2_576, compressed=True), limit=2_560)
    assert _is_too_large(frame(BINARY, b"x" * 2_576), limit=2_560)
    assert _is_too_large(frame(BINARY, b"x" * 2_600, compressed=True), limit=2_560)


def _is_too_large(data: bytes, limit: int) -> bool:
    counter = FrameCounter(limit)
    counter.feed(data)
    return counter.too_large


@pytest.mark.parametrize("stopped", [False, True])
def test_a_close_frame_is_seen_when_it_is_whole(stopped: bool) -> None:
    """Also behind a frame that was too large."""
    counter = FrameCounter(limit=3)
    if stopped:
        counter.feed(frame(TEXT, b"too large"))
    close = close_frame(1000, masked=True)
    counter.feed(close[:-1])
    assert not counter.closed
    counter.feed(close[-1:])
    assert counter.closed


CLOSED = close_frame(1009)


@pytest.mark.parametrize("cut", range(len(frame(TEXT, b"y" * 300)) + 1))
def test_an_end_waits_for_the_end_of_a_frame(cut: int) -> None:
    """Wherever it comes: a frame that has begun passes whole, then our Close, then nothing; a held header does not."""
    stream = frame(TEXT, b"y" * 300)
    counter = FrameCounter()
    passed = counter.feed(stream[:cut]) + counter.end(1009) + counter.feed(stream[cut:] + frame(CLOSE, b""))
    assert passed == (CLOSED if cut < 4 else stream + CLOSED)
    assert counter.ended
    assert counter.end(1009) == counter.feed(stream) == b""


def test_after_a_close_of_the_sender_there_is_no_other_one() -> None:
    """Two Close frames would be one too many."""
    counter = FrameCounter()
    counter.feed(frame(CLOSE, b"\x03\xe8"))
    assert counter.ended
    assert counter.end(1009) == b""


FRAMES = st.builds(
    frame,
    st.sampled_from([TEXT, BINARY, CONTINUATION, PING]),
    st.integers(0, 400).map(bytes),
    final=st.booleans(),
    masked=st.booleans(),
    compressed=st.booleans(),
)


@given(st.lists(FRAMES), st.lists(st.integers(1, 500)), st.integers(0, 1000))
def test_how_reads_cut_the_stream_changes_nothing(frames: list[bytes], sizes: list[int], limit: int) -> None:
    """What passes, and whether it is too much, is the same as when all of it comes at once."""
    stream = b"".join(frames)
    whole, cut = FrameCounter(limit), FrameCounter(limit)
    passed = b""
    at = 0
    for size in [*sizes, len(stream)]:
        passed += cut.feed(stream[at : at + size])
        at += size
    assert passed == whole.feed(stream)
    assert stream.startswith(passed)
    assert cut.too_large == whole.too_large
    assert cut.too_large or passed == stream


@given(st.lists(FRAMES), st.integers(0, 1000))
@example([frame(TEXT, b"", final=False), frame(TEXT, b"", compressed=True), frame(CONTINUATION, bytes(227))], 226)
@example([frame(TEXT, b"", final=False, compressed=True), frame(TEXT, b""), frame(CONTINUATION, bytes(227))], 226)
def test_a_read_for_each_frame_changes_nothing(frames: list[bytes], limit: int) -> None:
    """Not even a message that the one before has made too large, or left open."""
    whole, each = FrameCounter(limit), FrameCounter(limit)
    assert b"".join(map(each.feed, frames)) == whole.feed(b"".join(frames))
    assert each.too_large == whole.too_large
    assert each.end(1009) == whole.end(1009)


@given(st.lists(st.lists(st.integers(0, 300), min_size=1)), st.integers(0, 600))
def test_all_messages_up_to_the_limit_pass_and_no_others(messages: list[list[int]], limit: int) -> None:
    """A message is the sum of its frames; it passes up to the frame that makes it too large."""
    counter = FrameCounter(limit)
    for sizes in messages:
        for number, size in enumerate(sizes):
            piece = frame(CONTINUATION if number else TEXT, bytes(size), final=number + 1 == len(sizes))
            if sum(sizes[: number + 1]) > limit:
                assert counter.feed(piece) == b""
                assert counter.too_large
                return
            assert counter.feed(piece) == piece
    assert not counter.too_large


@given(st.binary(max_size=200), st.lists(st.integers(1, 30)))
def test_bytes_of_any_kind_do_no_harm(data: bytes, sizes: list[int]) -> None:
    """What is no WebSocket passes, or stops; it raises nothing, and nothing is added."""
    counter = FrameCounter(1000)
    at, passed = 0, b""
    for size in [*sizes, len(data)]:
        passed += counter.feed(data[at : at + size])
        at += size
    assert data.startswith(passed)


def test_a_close_frame_is_what_the_standard_says() -> None:
    """Its code is the payload; a client's frame has a mask."""
    assert close_frame(1009) == frame(CLOSE, b"\x03\xf1")
    assert close_frame(1009, masked=True) == frame(CLOSE, b"\x03\xf1", masked=True)
