"""Frames of calls: whatever the cuts, the same messages; whatever is no frame, an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.model.errors import InternalFailure
from portico.wire import calls, codec
from portico.wire.calls import PART_SIZE, Decoder, Kind, frames, size

ENDING = st.sampled_from([kind for kind in Kind if kind is not Kind.PART])
MESSAGES = st.lists(st.tuples(ENDING, st.binary(max_size=40)), max_size=5)


def sent(messages):
    """All bytes of these messages."""
    return b"".join(piece for kind, payload in messages for piece in frames(kind, [payload]))


def plain(messages):
    """Messages as they were given."""
    return [(message.kind, bytes(message.payload)) for message in messages]


@given(MESSAGES)
def test_every_cut_in_two_gives_the_same_messages(messages):
    """A decoder does not care where its bytes were cut."""
    data = sent(messages)
    for cut in range(len(data) + 1):
        decoder = Decoder()
        assert plain(decoder.feed(data[:cut]) + decoder.feed(data[cut:])) == messages
        assert decoder.between


@given(MESSAGES)
def test_single_bytes_give_the_same_messages(messages):
    """The smallest pieces of all."""
    decoder = Decoder()
    assert plain(m for byte in sent(messages) for m in decoder.feed(bytes([byte]))) == messages


@given(MESSAGES, st.integers(2, 9))
def test_parts_are_put_together(messages, part):
    """A message of several frames is one message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "PART_SIZE", part)
        patch.setattr(calls, "_COPIED", part)
        data = sent(messages)
        assert len(data) == sum(size([payload]) for _, payload in messages)
        assert plain(Decoder().feed(data)) == messages


def test_a_large_value_is_sent_in_parts():
    """No frame is larger than one part."""
    payload = bytes(range(256)) * 10_000
    pieces = list(frames(Kind.VALUE, [payload]))
    assert max(map(len, pieces)) <= PART_SIZE
    assert len(b"".join(pieces)) == size([payload])
    assert plain(Decoder().feed(b"".join(pieces))) == [(Kind.VALUE, payload)]


@given(ENDING, st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.integers(2, 9), st.integers(0, 9))
def test_a_payload_in_pieces_is_one_message(kind, payload, part, copied):
    """Of the size that was announced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "PART_SIZE", part)
        patch.setattr(calls, "_COPIED", min(copied, part))
        data = b"".join(frames(kind, payload))
        assert len(data) == size(payload)
        assert plain(Decoder().feed(data)) == [(kind, b"".join(payload))]


def test_large_bytes_are_not_copied():
    """They are sent from where they are."""
    large = bytes(PART_SIZE)
    assert any(getattr(piece, "obj", None) is large for piece in frames(Kind.VALUE, codec.dump((large, 7), "it")))


@given(st.tuples(ENDING, st.binary(max_size=20)), st.data())
def test_what_is_cut_off_is_noticed(message, data):
    """A decoder that was left in the middle of a message says so."""
    whole = sent([message])
    decoder = Decoder()
    assert decoder.feed(whole[: data.draw(st.integers(1, len(whole) - 1))]) == []
    assert not decoder.between


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK", b"\x06\0\0\0\1x", b"\x03\xff\xff\xff\xff"])
def test_other_bytes_are_refused(data):
    """Unknown kinds and lengths above the limit are no frames."""
    with pytest.raises(InternalFailure, match="not a call"):
        Decoder().feed(data)
