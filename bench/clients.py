"""Clients that see for themselves what each request came to, where wrk only counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Connection:
    """A connection that is kept, and made anew where it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self._reader is not None and not self._reader.at_eof()

    async def request(
        self, host: str, path: str, body: bytes, begun: asyncio.Event | None = None
    ) -> tuple[int, bytes, bytes]:
        """Status, head and body. OSError or EOFError where the answer is not whole. begun: set when there is a head."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await open_connection(self._port)
        method = "POST" if body else "GET"
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if begun is not None:
            begun.set()
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            answer = b""
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                answer += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
        else:
            answer = await self._reader.readexactly(int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if b"connection: close" in lower:
            self.close()
        return int(head.split()[1]), head, answer

    def close(self) -> None:
        """The next request makes a new one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


@contextlib.asynccontextmanager
async def kept(port: int) -> AsyncIterator[Connection]:
    """One, until the end of the block."""
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.close()


async def open_connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the server's door."""
    return await asyncio.open_connection("127.0.0.1", port)
