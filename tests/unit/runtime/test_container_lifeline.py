"""The container's end of its lifeline."""

from __future__ import annotations

import asyncio
import socket

from portico.runtime.lifeline import Lifeline, shorten
from portico.wire import container as wire


def a_pair() -> tuple[socket.socket, Lifeline]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours, Lifeline(theirs.detach())


def test_the_longest_failure_fits_one_packet() -> None:
    """Also where each character takes six bytes in JSON."""
    server, lifeline = a_pair()
    with server:
        lifeline.fail("\x01" * 100_000, "\x01" * 100_000)
        packet = server.recv(2 * wire.MAX_PACKET)
    assert len(packet) <= wire.MAX_PACKET
    assert isinstance(wire.from_container(packet), wire.Failed)


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    """The end of a traceback says what happened."""
    text = shorten("first\n" + "x" * 100_000 + "\nlast")
    assert text.startswith("first\n")
    assert text.endswith("\nlast")
    assert shorten("short") == "short"


def test_talking_to_a_server_that_is_gone_is_no_error() -> None:
    """The tether is about to end the process anyway."""
    server, lifeline = a_pair()
    server.close()
    lifeline.send(wire.Ready())


async def test_messages_arrive_in_order_on_the_loop() -> None:
    """One packet is one message; the end of the stream is silent."""
    server, lifeline = a_pair()
    heard: asyncio.Queue[object] = asyncio.Queue()
    lifeline.listen(heard.put_nowait)
    server.send(wire.encode(wire.Cancel("in-1")))
    server.send(wire.encode(wire.Stop(2.5)))
    server.close()
    assert [await heard.get(), await heard.get()] == [wire.Cancel("in-1"), wire.Stop(2.5)]
