"""Writes of stored calls, those of one moment together in one transaction: the disk is waited for once for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from portico.model.calls import Accepted, CallRecord, Change
from portico.model.ports import CallStore

_MOST: Final = 500  # changes in one transaction


class Journal:
    """Belongs to the control plane's loop."""

    def __init__(self, store: Callable[[], Awaitable[CallStore]]) -> None:
        self._store = store
        self._pending: list[tuple[Change, asyncio.Future[CallRecord | None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, change: Change) -> CallRecord | None:
        """Return when it is on disk; an accepted call with its position. Raises what the store raises."""
        written: asyncio.Future[CallRecord | None] = asyncio.get_running_loop().create_future()
        self._pending.append((change, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await written

    async def flush(self) -> None:
        """Return when all of it is on disk."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        try:
            store = await self._store()
            while self._pending:
                batch, self._pending = self._pending[:_MOST], self._pending[_MOST:]
                try:
                    accepted = iter(await store.write([change for change, _ in batch]))
                except Exception as error:
                    _fail(batch, error)
                    continue
                for change, written in batch:
                    record = next(accepted) if isinstance(change, Accepted) else None
                    if not written.done():
                        written.set_result(record)
        except BaseException as error:
            _fail(self._pending, error)
            self._pending = []
            raise
        finally:
            self._writing = None


def _fail(batch: list[tuple[Change, asyncio.Future[CallRecord | None]]], error: BaseException) -> None:
    for _, written in batch:
        if written.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            written.cancel()
        else:
            written.set_exception(error)
