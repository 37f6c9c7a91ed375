"""What the first process of a server and its further ingress processes, the shards, tell each other.

Both run the same code, as the same user. Each message is one packet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from portico.core.tokens import ProxyToken
from portico.ingress.moving import Passenger
from portico.ingress.ports import Refusal
from portico.model.policy import Policy
from portico.model.ports import ContainerStart
from portico.server.dataplane import Release
from portico.wire.control import Problem


class Message(msgspec.Struct, tag=True, frozen=True):
    """Base of all."""


# -- both ways ----------------------------------------------------------------------------------------------------
class Reply(Message, frozen=True):
    """The answer to the request of this number. container_id: whose start the problem is."""

    number: int
    value: Any = None
    problem: Problem | None = None
    container_id: str | None = None


# -- to a shard: what holds there ---------------------------------------------------------------------------------
class Told(Message, frozen=True):
    """Where a host of an entrance leads: to a function, which lives in this process. process 0: the first one knows."""

    entrance: str
    host: str
    process: int
    app_id: str = ""
    function: str = ""


class Failing(Message, frozen=True):
    """Whether no certificate can be had for a host."""

    host: str
    failed: bool


class PoliciesSet(Message, frozen=True):
    """These hold."""

    policies: list[Policy]


class Token(Message, frozen=True):
    """A proxy token that is valid. See `core.tokens.ProxyToken`."""

    id: str
    digest: bytes
    expires_at: float | None
    environments: frozenset[str]
    endpoints: frozenset[str]
    rate_limit: float | None

    def made(self) -> ProxyToken:
        """The token itself."""
        return ProxyToken(self.id, self.digest, self.expires_at, self.environments, self.endpoints)


class TokensGone(Message, frozen=True):
    """These are valid no longer; None: none is."""

    ids: list[str] | None


class Begun(Message, frozen=True):
    """That is all there is to know: it may take connections."""


# -- to a shard: apps ---------------------------------------------------------------------------------------------
class Install(Message, frozen=True):
    """This version answers from now on: what was proved of it, or something new."""

    release: Release


class Prove(Message, frozen=True):
    """Have it ready. Answered when it is."""

    number: int
    release: Release


class Discard(Message, frozen=True):
    """It does not come."""

    app_id: str
    version: int


class AppVerb(Message, frozen=True):
    """hold, release, rouse or stop."""

    verb: str
    app_id: str


class Cut(Message, frozen=True):
    """End what runs of it. Answered when it has gone."""

    number: int
    app_id: str


class Ask(Message, frozen=True):
    """A question: ping, counts, uses (of tokens), about, update, refuse (accept no more) or finish (end all)."""

    number: int
    what: str
    arguments: list[Any] = []


# -- to a shard: containers, and stored calls ---------------------------------------------------------------------
class ContainerNews(Message, frozen=True):
    """What the engine reports: ready (its address), failed (cause, detail, killed), finished (input) or exited (status,
    overran, was killed)."""

    container_id: str
    event: str
    arguments: list[Any]


class SeatAsked(Message, frozen=True):
    """A stored call queues up. seat: what it is called in what follows."""

    seat: int
    app_id: str
    function: str
    input_id: str
    target: bytes


class SeatVerb(Message, frozen=True):
    """leave, or what ends a lease."""

    seat: int
    verb: str


# -- from a shard -------------------------------------------------------------------------------------------------
class Hello(Message, frozen=True):
    """It has started."""


class Proved(Message, frozen=True):
    """A function of this request is ready."""

    number: int
    function: str


class Noted(Message, frozen=True):
    """A line for an app's log."""

    app_id: str
    function: str
    container_id: str
    text: str


class TokensUsed(Message, frozen=True):
    """When each was last used."""

    used: dict[str, float]


class Start(Message, frozen=True):
    """Start a container; its secrets are for the first process to add."""

    start: ContainerStart


class Dismiss(Message, frozen=True):
    """No start will ask for this snapshot any more."""

    snapshot: str


class ContainerVerb(Message, frozen=True):
    """cancel, hand_over (with a descriptor), stop or kill."""

    container_id: str
    verb: str
    arguments: list[Any] = []


class SeatGranted(Message, frozen=True):
    """It has a slot."""

    seat: int
    container_id: str
    address: str
    door: str
    is_foreign: bool
    queued: int


class SeatRefused(Message, frozen=True):
    """It gets none."""

    seat: int
    refusal: Refusal


class SeatTimedOut(Message, frozen=True):
    """It has run for too long, and so many wait."""

    seat: int
    queued: int


class Moved(msgspec.Struct, frozen=True):
    """A client's connection that comes with this, by an entrance, and what was read of it."""

    entrance: str
    read: bytes
    hops: int


ToShard = (
    Begun | Reply | Told | Failing | PoliciesSet | Token | TokensGone | Install | Prove | Discard | AppVerb | Cut | Ask
    | ContainerNews | SeatAsked | SeatVerb
)  # fmt: skip
FromShard = (
    Reply | Hello | Proved | Noted | TokensUsed | Start | Dismiss | ContainerVerb | SeatGranted | SeatRefused
    | SeatTimedOut
)  # fmt: skip


def _simple(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value)} is not sent")


def _made(kind: type, value: Any) -> Any:
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"{kind} is not read")


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_simple)
_to_shard: Final[msgspec.msgpack.Decoder[ToShard]] = msgspec.msgpack.Decoder(ToShard, dec_hook=_made)
_from_shard: Final[msgspec.msgpack.Decoder[FromShard]] = msgspec.msgpack.Decoder(FromShard, dec_hook=_made)
_moved: Final = msgspec.msgpack.Decoder(Moved)


def encode(message: Message) -> bytes:
    """As a packet."""
    return _encoder.encode(message)


def to_shard(packet: bytes) -> ToShard:
    """What a shard is told."""
    return _to_shard.decode(packet)


def from_shard(packet: bytes) -> FromShard:
    """What a shard tells."""
    return _from_shard.decode(packet)


def passenger(packet: bytes, descriptors: list[int]) -> Passenger:
    """A connection that comes."""
    moved = _moved.decode(packet)
    return Passenger(moved.entrance, descriptors[0], moved.read, hops=moved.hops)


def moved(leaving: Passenger) -> bytes:
    """A connection that goes, without its descriptor."""
    return _encoder.encode(Moved(leaving.entrance, leaving.read, leaving.hops))
