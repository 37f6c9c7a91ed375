"""Packets between the processes of a server."""

from __future__ import annotations

import asyncio
import os
import socket

from portico.server.packets import Packets, pair


class Inbox:
    """What has come."""

    def __init__(self, sock: socket.socket) -> None:
        self.came: asyncio.Queue[tuple[bytes, list[int]]] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.packets = Packets(sock, lambda data, fds: self.came.put_nowait((data, fds)), self.ended.set)


async def test_packets_come_whole_and_in_order_however_long_they_are() -> None:
    """Also more of them than a socket holds, with a reader that comes late."""
    ours, theirs = pair()
    sender = Packets(ours)
    sent = [bytes([number % 256]) * size for number in range(20) for size in (0, 1, 65536, 65537, 300_000)]
    for data in sent:
        sender.send(data)
    inbox = Inbox(theirs)
    assert [(await inbox.came.get())[0] for _ in sent] == sent
    await sender.flushed()
    sender.close()
    await inbox.ended.wait()
    inbox.packets.close()


async def test_a_descriptor_comes_with_its_packet() -> None:
    """And is not the sender's any more; with a long packet as with a short one."""
    ours, theirs = pair()
    sender, inbox = Packets(ours), Inbox(theirs)
    for data in (b"short", bytes(200_000)):
        reading, writing = os.pipe()
        sender.send(data, (writing,))
        came, (descriptor,) = await inbox.came.get()
        assert came == data
        os.write(descriptor, b"x")
        os.close(descriptor)
        assert os.read(reading, 2) == b"x"
        assert os.read(reading, 2) == b""  # nobody else has it
        os.close(reading)
    sender.close()
    inbox.packets.close()


async def test_several_may_write_and_who_rests_reads_nothing() -> None:
    """What was sent waits for whoever reads next, as for the successor of a process that has died."""
    ours, theirs = pair()
    one, two, heir = Packets(ours.dup()), Packets(ours), theirs.dup()
    first = Inbox(theirs)
    first.packets.rest()
    one.send(b"1")
    two.send(b"2")
    await asyncio.sleep(0)
    first.packets.close()
    second = Inbox(heir)
    assert [(await second.came.get())[0] for _ in range(2)] == [b"1", b"2"]
    one.close()
    two.close()
    await second.ended.wait()
    second.packets.close()
