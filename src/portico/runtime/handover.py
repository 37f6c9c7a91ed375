"""A WebSocket that a container takes over: its handshake comes through the ingress, all that follows past it.

The ingress offers the client's connection with the request. When the app accepts the WebSocket, its answer goes to the
ingress as ever; the connection comes back over the lifeline, with the head that is due there.

Laws:
1. What the client sent before comes on the request's connection, to its end; only then the client's own is read.
2. What the app sends behind its answer waits until the client's connection is there, and goes out behind the head.
3. Messages that are too large are as they are in the ingress: both sides get a Close frame; also when its time is up.
4. The app's protocol sees one transport, from the beginning to the end.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from portico.wire.websocket import Tunnel

LINGER: Final = 2.0  # seconds for a client to read what was sent, before its connection is closed
_SWITCHING: Final = b"HTTP/1.1 101 "
_WAITING: Final = 64 * 1024  # bytes that wait for the client's connection before the app is to pause


class Handover(asyncio.Transport):
    """The transport of the app's protocol, above both connections: the request's, and later the client's.

    request: the connection that the request came on. above: the app's protocol. on_end: hears when all has ended.
    """

    def __init__(
        self, request: asyncio.Transport, above: asyncio.Protocol, max_message: int | None, on_end: Callable[[], None]
    ) -> None:
        super().__init__()
        self._request = request
        self._client: asyncio.Transport | None = None
        self._above = above
        self._on_end = on_end
        self._tunnel = Tunnel(self._send, self._deliver, max_message, self._ending)
        self._loop = asyncio.get_running_loop()
        self._switched = False  # the app has accepted
        self._drained = False  # what the client sent before has come in whole
        self._taking: asyncio.Task[None] | None = None
        self._waiting: list[bytes] = []  # from the app, until the client's connection is there
        self._early: deque[bytes] = deque()  # from the client, through the ingress; read when its connection is there
        self._ahead: list[bytes] = []  # from the client's connection, before all of that had come
        self._reading = True  # the app's protocol wants more
        self._writable = True
        self._closing = False
        self._aborted = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        request.set_protocol(_Request(self))

    def __repr__(self) -> str:
        state = "taken" if self._client is not None else "switched" if self._switched else "asking"
        return f"<Handover {state} {self._tunnel!r}{' closing' * self._closing}>"

    def take(self, connection: socket.socket, head: bytes) -> None:
        """The client's connection is here, and the head that is due there."""
        if self._ended or self._taking is not None:
            connection.close()
            return
        connection.setblocking(False)
        self._taking = self._loop.create_task(self._take(connection, head))

    def time_is_up(self) -> None:
        """End the WebSocket, with a word to both sides where they speak to each other already."""
        if self._client is None or self._closing:
            self.end()
        else:
            self._tunnel.time_is_up()

    def end(self) -> None:
        """End the WebSocket at once."""
        self._closing = self._aborted = True
        self._request.abort()
        if self._client is not None:
            self._client.abort()

    # -- asyncio.Transport, for the app's protocol --------------------------------------------------------------------
    def write(self, data: Any) -> None:
        """See asyncio."""
        if self._client is not None:
            if not self._closing:
                self._tunnel.from_container(data)
        elif self._switched:
            self._wait(data)
        elif data.startswith(_SWITCHING):
            self._switched = True
            head, end, rest = bytes(data).partition(b"\r\n\r\n")
            self._request.write(head + end)
            self._request.resume_reading()
            self._wait(rest)
        else:
            self._request.write(data)

    def close(self) -> None:
        """See asyncio. What waits still goes out."""
        if self._closing:
            return
        self._closing = True
        if not self._switched:
            self._request.close()
        elif self._client is not None:
            self._hang_up(self._client)

    def abort(self) -> None:
        """See asyncio."""
        self.end()

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._closing or (self._client or self._request).is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio."""
        self._above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See asyncio."""
        return self._above

    def is_reading(self) -> bool:
        """See asyncio."""
        return self._reading

    def pause_reading(self) -> None:
        """See asyncio."""
        self._reading = False
        if not self._switched:
            self._request.pause_reading()
        elif self._client is not None:
            self._client.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._reading = True
        if self._switched:
            self._go_on()
        else:
            self._request.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        return self._request.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """See asyncio."""
        return sum(map(len, self._waiting)) if self._client is None else self._client.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio; the limits are ours."""

    def can_write_eof(self) -> bool:
        """See asyncio: a WebSocket ends with Close frames."""
        return False

    # -- for the two connections --------------------------------------------------------------------------------------
    def received(self, data: bytes) -> None:
        """From the client, through the ingress."""
        if self._switched:
            self._early.append(data)
        else:
            self._above.data_received(data)

    def received_directly(self, data: bytes) -> None:
        """From the client. What comes too early waits."""
        if self._drained and self._reading and not self._early:
            self._pass_in(data)
            return
        (self._early if self._drained else self._ahead).append(data)
        if self._client is not None:
            self._client.pause_reading()

    def drained(self) -> bool:
        """All that came through the ingress is here; whether that is because the client's own connection follows."""
        if self._switched and not self._drained:
            self._drained = True
            self._early.extend(self._ahead)
            self._ahead.clear()
            self._go_on()
        return self._switched

    def made(self, client: asyncio.Transport, head: bytes) -> None:
        """The client's connection is ready."""
        self._client = client
        if self._aborted:
            client.abort()
            return
        self.set_writable(True)
        client.write(head)
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._tunnel.from_container(data)
        self._go_on()
        if self._closing:
            self._hang_up(client)

    def set_writable(self, writable: bool) -> None:
        """Whether the app may go on to write."""
        if self._writable is not writable:
            self._writable = writable
            self._above.resume_writing() if writable else self._above.pause_writing()

    def lost(self, exc: Exception | None) -> None:
        """The client's connection has ended; or the request's, and no other one will come."""
        if self._ended:
            return
        self._ended = self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._request.abort()
        self._above.connection_lost(exc)
        self._on_end()

    @property
    def is_taken(self) -> bool:
        """Whether the client's connection has come, or is about to."""
        return self._client is not None or self._taking is not None

    # -- inside -------------------------------------------------------------------------------------------------------
    async def _take(self, connection: socket.socket, head: bytes) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: _Client(self, head), connection)
        except OSError as error:
            connection.close()
            self.lost(error)

    def _go_on(self) -> None:
        """Read what the client has sent, and then from its connection, as long as the app wants more."""
        if not self._drained or self._client is None:
            return
        self._request.abort()
        while self._early and self._reading:
            self._pass_in(self._early.popleft())
        if self._reading and not self._client.is_closing():
            self._client.resume_reading()

    def _pass_in(self, data: bytes) -> None:
        self._tunnel.from_client(data)
        if self._closing and self._tunnel.client_has_closed and self._client is not None:
            self._client.close()

    def _wait(self, data: Any) -> None:
        if data:
            self._waiting.append(bytes(data))
        if sum(map(len, self._waiting)) > _WAITING:
            self.set_writable(False)

    def _send(self, data: bytes) -> None:
        assert self._client is not None
        if not self._client.is_closing():
            self._client.write(data)

    def _deliver(self, data: bytes) -> None:
        if not self._closing:
            self._above.data_received(data)

    def _ending(self, within: float) -> None:
        self.resume_reading()  # what still comes is the rest of a frame of bounded size, or is thrown away
        self._abort_within(within)

    def _hang_up(self, client: asyncio.Transport) -> None:
        """Close. A client that still sends gets time to read: closing at once would reset its connection."""
        if self._tunnel.client_has_closed:
            client.close()
            return
        self.resume_reading()
        client.write_eof()
        self._abort_within(LINGER)

    def _abort_within(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self.end)


class _Request(asyncio.Protocol):
    """The connection that the request came on."""

    def __init__(self, handover: Handover) -> None:
        self._handover = handover

    def data_received(self, data: bytes) -> None:
        self._handover.received(data)

    def eof_received(self) -> bool:
        return self._handover.drained()

    def pause_writing(self) -> None:
        self._handover.set_writable(False)

    def resume_writing(self) -> None:
        self._handover.set_writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handover.is_taken:
            self._handover.drained()
        else:
            self._handover.lost(exc)


class _Client(asyncio.Protocol):
    """The client's own connection."""

    def __init__(self, handover: Handover, head: bytes) -> None:
        self._handover = handover
        self._head = head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handover.made(cast("asyncio.Transport", transport), self._head)

    def data_received(self, data: bytes) -> None:
        self._handover.received_directly(data)

    def pause_writing(self) -> None:
        self._handover.set_writable(False)

    def resume_writing(self) -> None:
        self._handover.set_writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handover.lost(exc)
