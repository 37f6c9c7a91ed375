"""The server's end of a packet socket."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from portico.engines.channel import PacketChannel

# as a user who has no right to more: what is on its way counts for the user, not for the process
MANY_ON_THEIR_WAY = """
import asyncio, os, resource, socket
from portico.engines.channel import PacketChannel

async def main():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = PacketChannel(ours, print)
    for number in range(90):
        channel.send(b"%d" % number, [os.dup(0)])
    for number in range(90):
        packet, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, theirs, 100, 1)
        assert int(packet) == number, packet
        os.close(descriptors[0])

asyncio.run(asyncio.to_thread(int))  # all that has to be imported is, before it may not be read
if os.geteuid() == 0:
    os.setresuid(USER, USER, USER)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
asyncio.run(main())
"""


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


def test_a_packet_waits_while_too_many_descriptors_are_on_their_way() -> None:
    """It is not taken for one that nobody hears."""
    user = str(100_000 + os.getpid())  # nobody else's
    script = MANY_ON_THEIR_WAY.replace("USER", user)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


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
