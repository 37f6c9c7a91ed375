"""WebSocket frames (RFC 6455, section 5), counted as they pass. Their payload is never looked at."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

MAX_MESSAGE: Final = 2 * 1024 * 1024  # bytes of payload in all frames of one message
LIMIT_VARIABLE: Final = "PORTICO_MAX_WEBSOCKET_MESSAGE"  # tells servers and containers another limit
GOING_AWAY: Final = 1001
TOO_BIG: Final = 1009
RESTART: Final = 1012
CLOSING: Final = 5.0  # seconds for both sides to close once they were told to
LATE: Final = 3.0  # the same when their time was up: less than there is until who does not end is killed

_FINAL: Final = 0x80
_COMPRESSED: Final = 0x40
_CLOSE: Final = 0x8
_FIRST_CONTROL: Final = 0x8
# Most of what comes is one whole, short message: it changes nothing, so nothing of it is counted.
_WHOLE: Final = frozenset([0x81, 0x82, 0xC1, 0xC2])  # how a message of one frame begins, text or binary
_SHORTEST: Final = 2
_EXTENDED: Final = 126  # from here on, the length stands elsewhere
_LONGEST: Final = 6 + _EXTENDED - 1


Writer = Callable[[bytes], None]


class FrameCounter:
    """One direction of one WebSocket, up to its Close frame or ours. `masked`: as a client sends it.

    Messages of more than `limit` bytes do not pass; None: all do. A compressed message counts as it is on the wire.
    What cannot be compressed grows there: by 5 bytes in each of deflate's blocks, of 2,048 bytes and more as the usual
    libraries set it up. So it may have `allowance` more.
    """

    def __init__(self, limit: int | None = MAX_MESSAGE, *, masked: bool = False) -> None:
        self.too_large = False  # a frame was stopped, and everything behind it
        self._limit = sys.maxsize if limit is None else limit
        self._masked = masked
        self._can_rest = self._limit >= _LONGEST
        self._at_rest = self._can_rest  # nothing of what has passed matters for what comes
        self._closing = False  # the sender's Close has begun to pass, or to be thrown away
        self._ending: bytes | None = None  # our Close
        self._under_way = 0  # bytes that still pass before it
        self._ended = False  # it has gone out
        self._header = b""  # the beginning of a header, held back until the rest of it is there
        self._payload = 0  # bytes of the current frame that are still to come
        self._message = 0  # bytes of the current message in the frames before
        self._allowance = 0  # bytes that this message may have beyond the limit

    def __repr__(self) -> str:
        return f"<FrameCounter {self._message} B{' closed' if self.closed else ''}{' stopped' * self.too_large}>"

    @property
    def closed(self) -> bool:
        """Whether the sender's Close frame has come, in whole."""
        return self._closing and not self._payload

    @property
    def ended(self) -> bool:
        """Whether the receiver has got a Close frame, the sender's or ours."""
        return self._ended or (self.closed and self._ending is None)

    def feed(self, data: bytes) -> bytes:
        """Count these bytes; those that may pass. A header passes when it is complete."""
        if self._at_rest and _SHORTEST <= len(data) <= _LONGEST and data[0] in _WHOLE:
            length = data[1] & 0x7F
            if length < _EXTENDED and len(data) == length + (6 if data[1] & 0x80 else 2):
                return data
        passing = self._scan(data)
        if self._ending is None:
            self._at_rest = self._can_rest and not (
                self._header or self._payload or self._message or self._allowance or self._closing or self.too_large
            )
            return passing
        passing = data[: self._under_way]
        self._under_way -= len(passing)
        return passing if self._under_way else passing + self._farewell()

    def end(self, code: int) -> bytes:
        """Let no further frame pass, but for the one that is under way. What to send now: our Close frame, or nothing.

        When a frame is under way, `feed` adds our Close frame to its end.
        """
        if self._ending is not None or self._closing:
            return b""
        self._ending = close_frame(code, masked=self._masked)
        self._at_rest = False
        self._under_way = 0 if self.too_large else self._payload
        return b"" if self._under_way else self._farewell()

    def _farewell(self) -> bytes:
        if self._ended or self._ending is None:
            return b""
        self._ended = True
        return self._ending

    def _scan(self, data: bytes) -> bytes:
        if self._header:
            data = self._header + data
        stop = 0 if self.too_large else None
        position = self._payload
        while position < len(data):
            length = self._frame(data, position)
            if length is None:
                break
            if self.too_large and stop is None:
                stop = position
            position += length
        self._header = data[position:]
        self._payload = max(0, position - len(data))
        return data[: position if stop is None else stop]

    def _frame(self, data: bytes, at: int) -> int | None:
        """The length of the frame that begins here, header and payload; None when its header is incomplete."""
        if len(data) < at + 2:
            return None
        first, second = data[at], data[at + 1]
        extended = {126: 2, 127: 8}.get(second & 0x7F, 0)
        header = 2 + extended + (4 if second & 0x80 else 0)
        if len(data) < at + header:
            return None
        payload = int.from_bytes(data[at + 2 : at + 2 + extended], "big") if extended else second & 0x7F
        self._count(first, payload)
        return header + payload

    def _count(self, first: int, payload: int) -> None:
        opcode = first & 0x0F
        if opcode >= _FIRST_CONTROL:
            self._closing = self._closing or opcode == _CLOSE
            return
        if opcode:
            self._allowance = allowance(self._limit) if first & _COMPRESSED else 0
        self._message += payload
        self.too_large = self.too_large or self._message > self._limit + self._allowance
        if first & _FINAL:
            self._message = self._allowance = 0


class Tunnel:
    """A WebSocket between a client and a container: bytes pass as they come, and the frames among them are counted.

    to_client and to_container: take what passes. on_ending: hears when both were told to close, and within how long.

    Laws:
    1. What passes is not changed, not copied and not looked into, but for the headers of frames.
    2. No message above the limit passes, in either direction. Both sides get a Close frame instead, at the end of the
       frame that is on its way to them, and nothing after it.
    3. Only its two sides end a WebSocket, unless it is ending by law 2, or its time is up, when both get a Close frame
       in the same way: then it has some seconds. A client is also told when its container had to go.
    """

    __slots__ = ("_inward", "_on_ending", "_outward", "_to_client", "_to_container", "ending")

    def __init__(
        self, to_client: Writer, to_container: Writer, limit: int | None, on_ending: Callable[[float], None]
    ) -> None:
        self.ending = False  # by law 2, or because its time is up
        self._to_client = to_client
        self._to_container = to_container
        self._on_ending = on_ending
        self._inward = FrameCounter(limit, masked=True)
        self._outward = FrameCounter(limit)

    def __repr__(self) -> str:
        return f"<Tunnel in {self._inward!r} out {self._outward!r}{' ending' * self.ending}>"

    @property
    def client_has_closed(self) -> bool:
        """Whether the client's Close frame has come: nothing follows it."""
        return self._inward.closed

    def from_client(self, data: bytes) -> None:
        """The client has sent this."""
        passing = self._inward.feed(data)
        if passing:
            self._to_container(passing)
        if self._inward.too_large and not self.ending:
            self._end(TOO_BIG, CLOSING)

    def from_container(self, data: bytes) -> None:
        """The container has sent this."""
        passing = self._outward.feed(data)
        if passing:
            self._to_client(passing)
        if self._outward.too_large and not self.ending:
            self._end(TOO_BIG, CLOSING)

    def time_is_up(self) -> None:
        """It has lived for as long as it may."""
        if not self.ending:
            self._end(GOING_AWAY, LATE)

    def container_has_gone(self) -> None:
        """It had to end, and its connection has: a client that it has not told hears it from us."""
        if close := self._outward.end(RESTART):
            self._to_client(close)

    def _end(self, code: int, within: float) -> None:
        self.ending = True
        # the client first: the container may answer at once
        if close := self._outward.end(code):
            self._to_client(close)
        if close := self._inward.end(code):
            self._to_container(close)
        self._on_ending(within)


def allowance(limit: int) -> int:
    """Bytes that a compressed message may have beyond the limit."""
    return limit >> 7


def close_frame(code: int, *, masked: bool = False) -> bytes:
    """A Close frame with this code; `masked` as a client sends it."""
    return (b"\x88\x82\0\0\0\0" if masked else b"\x88\x02") + code.to_bytes(2, "big")
