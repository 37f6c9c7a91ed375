"""What `portico run` says to the process that runs the user's side of an app, one JSON document each.

The order is its argument; what has come up, it reads from a descriptor, as soon as the app is there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from portico.wire.reading import ReadRequest


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Run this. `words` are for one that takes them as they are, `options` for others; datetimes in ISO 8601."""

    request: ReadRequest
    name: str
    entrypoint: bool
    words: list[str] = []
    options: dict[str, Any] = {}
    write_result: str | None = None
    go: int  # the descriptor


class Go(msgspec.Struct, frozen=True, kw_only=True):
    """The app is up."""

    app_id: str
    app_name: str
    urls: dict[str, str] = {}


_order = msgspec.json.Decoder(Order)
_go = msgspec.json.Decoder(Go)


def encode(message: Order | Go) -> bytes:
    """One document."""
    return msgspec.json.encode(message)


def order(data: str) -> Order:
    """What to run."""
    return _order.decode(data)


def go(data: bytes) -> Go:
    """What has come up."""
    return _go.decode(data)
