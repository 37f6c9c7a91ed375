"""Joins a client's connection with a socket that an app holds: WebSockets for apps that want a socket of their own.

WSGI has no WebSockets; what its libraries do instead is take the connection's socket out of the environ and speak to it
themselves, from the answer to the handshake on. Here they get one end of a pair.

Laws:
1. The connection belongs to the app from the first byte that it sends. Until then an HTTP response may go out instead.
2. What waits between both sides is what the buffers of the two connections hold: whoever is slow slows the other.
3. How large messages may be is for others to say: the ingress, or what has taken the connection over from it.
4. When Close frames have passed both ways, or the app has ended without one, the connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from portico.wire.websocket import RESTART, FrameCounter

EXTENSION: Final = "portico.tunnel"  # its name among the extensions of an ASGI scope
_LINGER: Final = 5.0  # seconds for the client to answer a Close frame
_SWITCHING: Final = b"HTTP/1.1 101 "


class Tunnel(asyncio.Protocol):
    """The protocol of our end of the pair; the protocol of the client's connection says what happens there."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._app = cast("asyncio.Transport", None)
        self._ours: socket.socket | None = None
        self._early: list[bytes] = []  # what the client sent before the app had its socket
        self._head: bytes | None = b""  # of the app's answer, until it is complete
        self._is_websocket = False  # the app has switched protocols
        self._used = False
        self._refused = False
        self._inward = FrameCounter(None, masked=True)
        self._outward = FrameCounter(None)
        self._ending = False  # by Close frames of our own
        self._timer: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()

    def __repr__(self) -> str:
        return f"<Tunnel in {self._inward!r} out {self._outward!r}{' ending' * self._ending}>"

    # -- for what runs the app ------------------------------------------------------------------------------------
    async def open(self) -> socket.socket:
        """The app's socket, a blocking one."""
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        theirs.setblocking(True)
        await self._loop.create_unix_connection(lambda: self, sock=self._ours)
        return theirs

    @property
    def taken(self) -> bool:
        """Whether the app has sent anything through its socket."""
        if not self._used and self._ours is not None:
            try:
                self._used = bool(self._ours.recv(1, socket.MSG_PEEK))
            except OSError:  # nothing is there, or the app has closed its end
                return False
        return self._used

    def refuse(self) -> None:
        """The app answers with an HTTP response instead."""
        self._refused = True
        self._app.abort()

    def end(self) -> None:
        """End the WebSocket: the app has to stop."""
        if self._ending:
            return
        self._ending = True
        self._linger()
        self._to_app(self._inward.end(RESTART))
        if not self._is_websocket:
            self._client.close()
        self._to_client(self._outward.end(RESTART))

    async def closed(self) -> None:
        """Returns when the client's connection has ended."""
        await self._closed

    # -- for the protocol of the client's connection --------------------------------------------------------------
    def from_client(self, data: bytes) -> None:
        """It has sent this."""
        if self._app is None:
            self._early.append(data)
        elif not self._refused:
            self._to_app(self._inward.feed(data))
            self._close_if_both_have()

    def client_is_slow(self) -> None:
        """It does not read what was sent."""
        if self._app is not None and not self._app.is_closing():
            self._app.pause_reading()

    def client_is_ready(self) -> None:
        """It has caught up."""
        if self._app is not None and not self._app.is_closing():
            self._app.resume_reading()

    def client_has_gone(self) -> None:
        """Its connection has ended. What it has sent until then still reaches the app."""
        if self._timer is not None:
            self._timer.cancel()
        if self._app is not None:
            self._app.close()
        if not self._closed.done():
            self._closed.set_result(None)

    # -- asyncio.Protocol, of the app's end -----------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._app = cast("asyncio.Transport", transport)
        early, self._early = self._early, []
        for data in early:
            self.from_client(data)
        if self._closed.done():  # the client has not waited for it
            self._app.close()

    def data_received(self, data: bytes) -> None:
        self._used = True
        if self._head is not None:
            data = self._pass_head(self._head + data)
        if not self._is_websocket:
            self._send(data)
        else:
            self._to_client(self._outward.feed(data))
            self._close_if_both_have()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ours = None
        if self._refused or not self._used:
            return
        if self._outward.ended and not self._inward.closed:
            self._linger()
        else:
            self._client.close()

    def pause_writing(self) -> None:
        if not self._client.is_closing():
            self._client.pause_reading()

    def resume_writing(self) -> None:
        if not self._client.is_closing():
            self._client.resume_reading()

    # -- inside ---------------------------------------------------------------------------------------------------
    def _pass_head(self, head: bytes) -> bytes:
        """Pass on the head of the app's answer as soon as it is complete; what comes after it."""
        end = head.find(b"\r\n\r\n") + 4
        if end < 4:
            self._head = head
            return b""
        self._head = None
        self._is_websocket = head.startswith(_SWITCHING)
        self._send(head[:end])
        return head[end:]

    def _send(self, data: bytes) -> None:
        if data and not self._client.is_closing():
            self._client.write(data)

    def _to_app(self, data: bytes) -> None:
        if self._app is None or self._app.is_closing():
            return
        if data:
            self._app.write(data)
        if self._ending and (self._inward.ended or not self._is_websocket):
            self._app.write_eof()

    def _to_client(self, data: bytes) -> None:
        self._send(data)
        if self._ending and self._outward.ended:  # whatever the app still sends is thrown away
            self.client_is_ready()
            self.resume_writing()

    def _close_if_both_have(self) -> None:
        if self._inward.closed and self._outward.ended:
            self._client.close()

    def _linger(self) -> None:
        """Closing at once would reset the connection under what the client has not read yet."""
        if self._timer is None:
            self._timer = self._loop.call_later(_LINGER, self._client.abort)
