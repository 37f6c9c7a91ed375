"""Connections to containers, where their ends come at bad moments."""

from __future__ import annotations

import asyncio
from typing import cast

from portico.ingress.exchange import Exchange
from portico.ingress.upstream import UpstreamConnection, Upstreams


class Closing(asyncio.Transport):
    """A transport whose other end has gone."""

    def is_closing(self) -> bool:
        return True


class Asking:
    """An exchange that records what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def not_connected(self) -> None:
        self.told.append("not connected")


async def test_a_connection_that_ends_before_its_exchange_begins_tells_it_so() -> None:
    """The container may go between the connection and the request: nothing was sent, and another one may have it."""
    connection = UpstreamConnection(Upstreams(asyncio.get_running_loop()), "/address")
    connection.connection_made(Closing())
    connection.connection_lost(None)
    asking = Asking()
    connection.begin(cast(Exchange, asking))
    assert asking.told == ["not connected"]
