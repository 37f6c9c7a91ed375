"""A streamed response: from the request to its first chunk.

Through the ingress, and from the same app on bare uvicorn; one connection each, kept alive.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator

from bench.results import Goal, Run, Table
from bench.stand import APPS, WEB, get, get_when_up, spread, stand, uvicorn


def main(run: Run) -> Iterator[Table]:
    """In turns, request by request."""
    requests = 10 if run.quick else 1000
    with stand() as here, uvicorn(*WEB) as bare:
        host = here.deploy(APPS / "web_app.py")["web"]
        get(here.port, host)
        get_when_up(bare)
        ours, theirs = Reader(here.port, host), Reader(bare, "localhost")
        for reader in (ours, theirs):
            reader.first_chunk()
        pairs = [(ours.first_chunk(), theirs.first_chunk()) for _ in range(requests)]
        ours.close()
        theirs.close()
    through, directly = [a for a, _ in pairs], [b for _, b in pairs]
    later = (statistics.median(through) - statistics.median(directly)) * 1000
    yield Table(
        "streaming, time to the first chunk",
        {
            "portico": spread(through, 3),
            "bare uvicorn": spread(directly, 3),
            "later by, ms (p50)": round(later, 3),
            "later by, ms (of pairs)": spread([a - b for a, b in pairs], 3),
        },
        (
            Goal(
                "first chunk of a stream, later by",
                later,
                "ms",
                at_most=1,
                ours=f"{statistics.median(through) * 1000:.2f} ms",
                beside=f"{statistics.median(directly) * 1000:.2f} ms, bare uvicorn",
            ),
        ),
    )


class Reader:
    """One kept-alive connection."""

    def __init__(self, port: int, host: str) -> None:
        self._port, self._host = port, host
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._request = f"GET /stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def first_chunk(self) -> float:
        """Seconds from the request to its first chunk; the rest of the answer is read before this returns."""
        began = time.perf_counter()
        self._connection.sendall(self._request)
        answer = b""
        while b"first" not in answer:
            answer += self._receive()
        took = time.perf_counter() - began
        get(self._port, self._host, "/go-on")
        while not answer.endswith(b"0\r\n\r\n"):
            answer += self._receive()
        return took

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _receive(self) -> bytes:
        data = self._connection.recv(65536)
        assert data, "the connection ended"
        return data
