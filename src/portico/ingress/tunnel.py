"""A WebSocket between a client and a container: bytes pass as they come, and the frames among them are counted.

Laws:
1. What passes is not changed, not copied and not looked into, but for the headers of frames.
2. No message above the limit passes, in either direction. Both sides get a Close frame instead, at the end of the frame
   that is on its way to them, and nothing after it.
3. Only its two sides end a WebSocket, unless it is ending by law 2: then it has `CLOSING` seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from portico.wire.websocket import TOO_BIG, FrameCounter

if TYPE_CHECKING:
    from portico.ingress.client import ClientConnection
    from portico.ingress.upstream import UpstreamConnection

CLOSING: Final = 5.0  # seconds for both sides to close once they were told to


class Tunnel:
    """Joins the two connections of one WebSocket."""

    __slots__ = ("_client", "_inward", "_outward", "_upstream", "ending")

    def __init__(self, client: ClientConnection, upstream: UpstreamConnection, limit: int | None) -> None:
        self.ending = False  # by law 2
        self._client = client
        self._upstream = upstream
        self._inward = FrameCounter(limit, masked=True)
        self._outward = FrameCounter(limit)

    def __repr__(self) -> str:
        return f"<Tunnel in {self._inward!r} out {self._outward!r}{' ending' * self.ending}>"

    @property
    def client_has_closed(self) -> bool:
        """Whether the client's Close frame has come: nothing follows it."""
        return self._inward.closed

    def from_client(self, data: bytes) -> None:
        """The client has sent this."""
        passing = self._inward.feed(data)
        if passing:
            self._upstream.write(passing)
        if self._inward.too_large and not self.ending:
            self._end()

    def from_container(self, data: bytes) -> None:
        """The container has sent this."""
        passing = self._outward.feed(data)
        if passing:
            self._client.write(passing)
        if self._outward.too_large and not self.ending:
            self._end()

    def _end(self) -> None:
        self.ending = True
        if close := self._inward.end(TOO_BIG):
            self._upstream.write(close)
        if close := self._outward.end(TOO_BIG):
            self._client.write(close)
        # What still comes is the rest of a frame of bounded size, or is thrown away: so both sides may send again.
        self._upstream.resume()
        self._client.resume()
        self._client.close_within(CLOSING)
