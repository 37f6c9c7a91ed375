"""`FolderBodies`: large requests and responses of stored calls, in a folder.

    <root>/calls/<call id>.request     and .response

Whatever has its final name is complete and on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path

from portico.model.errors import StateError
from portico.store.files import TEMPORARY, make_private, publish, temporary_file

_BATCH = 1024**2  # bytes written, and read, at a time


class FolderBodies:
    """Implements `model.ports.Bodies` below `root`, the server's home."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "calls"

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Store it durably; its size."""
        size = 0
        batch = bytearray()
        try:
            await asyncio.to_thread(make_private, self._folder)
            with temporary_file(self._folder) as (file, temporary):
                async for chunk in chunks:
                    size += len(chunk)
                    batch += chunk
                    if len(batch) >= _BATCH:
                        await asyncio.to_thread(file.write, batch)
                        batch.clear()
                await asyncio.to_thread(file.write, batch)
                await asyncio.to_thread(publish, file, temporary, self._folder / name, 0o600)
        except OSError as error:
            raise StateError(f"A call's data could not be stored: {error}", hint="Is the disk full?") from error
        return size

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Its bytes, in pieces."""
        try:
            file = await asyncio.to_thread(open, self._folder / name, "rb")
        except OSError as error:
            raise StateError(f"A call's data cannot be read: {error}") from error
        with file:
            while piece := await asyncio.to_thread(file.read, _BATCH):
                yield piece

    async def remove(self, call_ids: Collection[str]) -> None:
        """Remove all that belongs to these calls."""
        await asyncio.to_thread(self._remove, call_ids)

    async def sweep(self, is_kept: Callable[[str], Awaitable[bool]], before: float) -> None:
        """Remove what was written before then and belongs to calls that are not kept."""
        for file in await asyncio.to_thread(self._older, before):
            if file.name.startswith(TEMPORARY) or not await is_kept(file.name.partition(".")[0]):
                await asyncio.to_thread(_unlink, file)

    def _older(self, before: float) -> list[Path]:
        return [file for file in self._folder.glob("*") if file.stat().st_mtime < before]

    def _remove(self, call_ids: Collection[str]) -> None:
        for call_id in call_ids:
            for what in ("request", "response"):
                _unlink(self._folder / f"{call_id}.{what}")


def _unlink(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
