"""The server's end of a packet socket."""

from __future__ import annotations

import asyncio
import os
import socket

from portico.engines.channel import PacketChannel


def a_pair(heard: list[bytes]) -> tuple[PacketChannel, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return PacketChannel(ours, heard.append), theirs


async def test_packets_that_do_not_fit_are_sent_later_in_order() -> None:
    """A reader that is slow gets everything, and its descriptors are closed on our side."""
    channel, other = a_pair([])
    with other:
        for number in range(2_000):
            channel.send(b"%d" % number, [os.dup(0)])
        before = len(os.listdir("/proc/self/fd"))
        received = []
        for _ in range(2_000):
            packet, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, other, 100, 1)
            os.close(descriptors[0])
            received.append(int(packet))
        channel.close()
    assert received == list(range(2_000))
    assert len(os.listdir("/proc/self/fd")) < before


async def test_closing_closes_what_was_not_sent() -> None:
    """No descriptor is left in a queue."""
    channel, other = a_pair([])
    with other:
        before = set(os.listdir("/proc/self/fd"))
        for _ in range(1_000):
            channel.send(b"x", [os.dup(0)])
        channel.close()
        assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # the listing's own


async def test_drain_hands_over_what_has_arrived() -> None:
    """Nothing has to wait for the loop."""
    heard: list[bytes] = []
    channel, other = a_pair(heard)
    with other:
        other.send(b"one")
        other.send(b"two")
        channel.drain()
        channel.close()
    assert heard == [b"one", b"two"]


async def test_the_end_of_the_other_side_is_silent() -> None:
    """Sending to it is no error, and neither is closing twice."""
    heard: list[bytes] = []
    channel, other = a_pair(heard)
    other.close()
    channel.drain()
    channel.send(b"x")
    channel.close()
    channel.close()
    assert heard == []
