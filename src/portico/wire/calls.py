"""The bytes of a call: a request and its answer, as frames in the bodies of an HTTP exchange. Sans-I/O.

A frame is a kind (one byte), a length (four bytes, big-endian), and so many bytes. A message is any number of PARTs and
the frame of another kind that ends it. So large values pass in small pieces, and who relays them looks at none.

    request:             CALL or ITERATE (args, kwargs)
    answer to CALL:      VALUE or ERROR
    answer to ITERATE:   VALUE…, then END or ERROR

An answer that stops before its last message is an error, never a quiet end. Where the ingress stops it, a
trailer of the HTTP response says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from portico.model.errors import InternalFailure

SOCKET_VARIABLE: Final = "PORTICO_CALLS_SOCKET"  # where a container finds the way to call
RELAYED_PATH: Final = b"/v1/calls"  # from another machine: where the control API passes calls on, …
RELAYED_HOST: Final = b"x-portico-call"  # … and the header that says to which host of the calls' socket
CONTENT_TYPE: Final = b"application/x-portico-call"
FAILED_HEADER: Final = b"x-portico-failed"  # container -> server: the answer is what the function has raised
STORED_HOST: Final = "stored.calls"  # where the results of stored calls are
SPAWN_DOMAIN: Final = ".spawn"  # in place of a function's own ".calls": store the call, answer with its id
CONTROL_DOMAIN: Final = ".control"  # in place of it: how the function is scaled, and is doing
_CALLS_DOMAIN: Final = ".calls"
STOPPED_TRAILER: Final = b"x-portico-stopped"  # the code of an error of the model, and its text
PART_SIZE: Final = 1 << 20  # bytes of payload in one frame, at most
_HEAD: Final = 5
_COPIED: Final = 1 << 17  # bytes that are sent in one piece with their head


class Kind(IntEnum):
    """What a frame is."""

    PART = 0  # the message goes on in the next frame
    CALL = 1
    ITERATE = 2
    VALUE = 3
    ERROR = 4
    END = 5


class Message(NamedTuple):
    """A whole message."""

    kind: Kind
    payload: bytearray


def frames(kind: Kind, payload: Sequence[bytes] = (b"",)) -> Iterator[bytes | memoryview]:
    """The frames of one message whose payload is in these pieces: what to send, the first of it bytes."""
    *before, last = payload
    for piece in before:
        yield from _frames(Kind.PART, piece)
    yield from _frames(kind, last)


def _frames(kind: Kind, piece: bytes) -> Iterator[bytes | memoryview]:
    if len(piece) <= _COPIED:
        yield _head(kind, len(piece)) + piece
        return
    view = memoryview(piece)
    for start in range(0, len(piece), PART_SIZE):
        part = view[start : start + PART_SIZE]
        yield _head(kind if start + PART_SIZE >= len(piece) else Kind.PART, len(part))
        yield part


def size(payload: Sequence[bytes]) -> int:
    """How many bytes the frames of a message have together."""
    return sum(len(piece) + _HEAD * max(1, -(-len(piece) // PART_SIZE)) for piece in payload)


def calls_host(host: str) -> str:
    """The host at which a function is called, from one of its others."""
    return host.partition(".")[0] + _CALLS_DOMAIN


def other_host(host: str, domain: str) -> str:
    """The reverse: SPAWN_DOMAIN or CONTROL_DOMAIN in place of its own."""
    return host.partition(".")[0] + domain


class Decoder:
    """Bytes, cut anywhere, to messages."""

    def __init__(self) -> None:
        self._rest = bytearray()  # an incomplete head
        self._kind = Kind.PART
        self._missing = 0  # bytes of the current frame
        self._in_frame = False
        self._payload = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete. InternalFailure when they cannot be frames."""
        messages: list[Message] = []
        view = memoryview(data)
        at = 0
        while True:
            if not self._in_frame:
                wanted = _HEAD - len(self._rest)
                self._rest += view[at : at + wanted]
                at += wanted
                if len(self._rest) < _HEAD:
                    return messages
                self._begin()
            piece = view[at : at + self._missing]
            self._payload += piece
            at += len(piece)
            self._missing -= len(piece)
            if self._missing:
                return messages
            self._in_frame = False
            if self._kind is not Kind.PART:
                messages.append(Message(self._kind, self._payload))
                self._payload = bytearray()

    @property
    def between(self) -> bool:
        """Whether the last message is complete and no other has begun."""
        return not (self._in_frame or self._rest or self._payload)

    def _begin(self) -> None:
        kind, length = self._rest[0], int.from_bytes(self._rest[1:], "big")
        if kind > Kind.END or length > PART_SIZE:
            raise InternalFailure("What came is not a call of Portico: a frame cannot begin so.")
        self._rest.clear()
        self._kind, self._missing, self._in_frame = Kind(kind), length, True


def _head(kind: Kind, length: int) -> bytes:
    return bytes((kind,)) + length.to_bytes(4, "big")
