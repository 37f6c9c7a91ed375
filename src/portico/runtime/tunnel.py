"""Joins a client's connection with a socket that an app holds: WebSockets for apps that want a socket of their own.

WSGI has no WebSockets; what its libraries do instead is take the connection's socket out of the environ and speak to it
themselves, from the answer to the handshake on. Here they get one end of a pair.

Laws:
1. The connection belongs to the app from the first byte that it sends. Until then an HTTP response may go out instead.
2. What waits between both sides is what the buffers of the two connections hold: whoever is slow slows the other.
3. No message of more than `MAX_MESSAGE` bytes passes: both sides get a Close frame instead, and nothing after it.
4. When Close frames have passed both ways, or the app has ended without one, the connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from portico.wire.websocket import RESTART, TOO_BIG, FrameCounter, close_frame

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
        self._inward = FrameCounter()
        self._outward = FrameCounter()
        self._ending: int | None = None  # the code of Close frames of our own
        self._told = False  # the client has ours
        self._timer: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()

    def __repr__(self) -> str:
        return f"<Tunnel in {self._inward!r} out {self._outward!r} ending {self._ending}>"

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
        self._end(RESTART)

    async def closed(self) -> None:
        """Returns when the client's connection has ended."""
        await self._closed

    # -- for the protocol of the client's connection --------------------------------------------------------------
    def from_client(self, data: bytes) -> None:
        """It has sent this."""
        if self._app is None:
            self._early.append(data)
        elif not self._refused:
            passing = self._inward.feed(data)
            if self._ending is None and not self._app.is_closing():
                self._app.write(passing)
                if self._inward.too_large:
                    self._end(TOO_BIG)
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
        elif not self._told:
            self._send(self._outward.feed(data))
            if self._outward.too_large:
                self._end(TOO_BIG)
            self._tell()
            self._close_if_both_have()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ours = None
        if self._refused or not self._used:
            return
        if (self._told or self._outward.closed) and not self._inward.closed:
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

    def _end(self, code: int) -> None:
        if self._ending is not None:
            return
        self._ending = code
        self._linger()
        if self._app is not None and not self._app.is_closing():
            if self._inward.between_frames:
                self._app.write(close_frame(code, masked=True))
            self._app.write_eof()
        if not self._is_websocket:
            self._client.close()
        self._outward.limit = -1  # the frame that is on its way is the last one
        self._tell()

    def _tell(self) -> None:
        """Send the client our Close frame, if there is one, as soon as that is possible."""
        if self._ending is None or self._told or not self._outward.between_frames:
            return
        self._told = True
        if not self._outward.closed:
            self._send(close_frame(self._ending))
        self.client_is_ready()  # whatever the app still sends is thrown away
        self.resume_writing()

    def _close_if_both_have(self) -> None:
        if self._inward.closed and (self._told or self._outward.closed):
            self._client.close()

    def _linger(self) -> None:
        """Closing at once would reset the connection under what the client has not read yet."""
        if self._timer is None:
            self._timer = self._loop.call_later(_LINGER, self._client.abort)
