"""`SqlCalls`: the stored calls, in the database of `SqlStore`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from portico.model.calls import Accepted, Body, CallRecord, CallState, Change, Finished, Outcome, Requeued, Started
from portico.store.schema import calls

_ONE = update(calls).where(calls.c.id == bindparam("call_id"))
_START = _ONE.values(state=CallState.STARTED.value, attempts=bindparam("new_attempts"), not_before=None)
_REQUEUE = _ONE.values(
    state=CallState.QUEUED.value, attempts=bindparam("new_attempts"), not_before=bindparam("new_not_before")
)
_FINISH = _ONE.values(
    state=CallState.DONE.value,
    finished_at=bindparam("new_finished_at"),
    status=bindparam("new_status"),
    code=bindparam("new_code"),
    lines=bindparam("new_lines"),
    result=bindparam("new_result"),
    result_size=bindparam("new_result_size"),
    result_file=bindparam("new_result_file"),
)


class SqlCalls:
    """Implements `model.ports.CallStore`. `transaction` is the store's."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._transaction = transaction

    async def write(self, changes: Sequence[Change]) -> list[CallRecord]:
        """All of it in one transaction. The calls that were accepted, with their positions."""
        accepted = [change.call for change in changes if isinstance(change, Accepted)]
        async with self._transaction() as connection:
            rows = await _insert(connection, accepted)
            await _many(connection, _START, [_start(change) for change in changes if isinstance(change, Started)])
            await _many(connection, _REQUEUE, [_requeue(change) for change in changes if isinstance(change, Requeued)])
            await _many(connection, _FINISH, [_finish(change) for change in changes if isinstance(change, Finished)])
        return rows

    async def call(self, call_id: str) -> CallRecord | None:
        """One call, if it is kept."""
        rows = await self._rows(select(calls).where(calls.c.id == call_id))
        return _record(rows[0]) if rows else None

    async def queued(self, app_id: str, function: str, after: int, limit: int) -> list[CallRecord]:
        """The calls of a function that wait, in order, from the first one behind this position."""
        query = (
            select(calls)
            .where(calls.c.state == CallState.QUEUED.value, calls.c.app_id == app_id, calls.c.function == function)
            .where(calls.c.position > after)
            .order_by(calls.c.position)
            .limit(limit)
        )
        return [_record(row) for row in await self._rows(query)]

    async def waiting(self) -> list[tuple[str, str]]:
        """App id and function of all calls that wait."""
        query = select(calls.c.app_id, calls.c.function).where(calls.c.state == CallState.QUEUED.value).distinct()
        return [(row.app_id, row.function) for row in await self._rows(query)]

    async def started(self) -> list[CallRecord]:
        """The calls that have been started and have not ended."""
        query = select(calls).where(calls.c.state == CallState.STARTED.value).order_by(calls.c.position)
        return [_record(row) for row in await self._rows(query)]

    async def expire(self, before: float, limit: int) -> list[str]:
        """Remove calls that ended before then; their ids."""
        async with self._transaction() as connection:
            old = select(calls.c.id).where(calls.c.finished_at < before).order_by(calls.c.finished_at).limit(limit)
            ids = list(await connection.scalars(old))
            if ids:
                await connection.execute(delete(calls).where(calls.c.id.in_(ids)))
        return ids

    async def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        async with self._transaction() as connection:
            return list(await connection.execute(query))


async def _insert(connection: AsyncConnection, accepted: list[CallRecord]) -> list[CallRecord]:
    if not accepted:
        return []
    query = calls.insert().returning(calls.c.position, calls.c.id, sort_by_parameter_order=True)
    rows = (await connection.execute(query, [_values(call) for call in accepted])).all()
    return [_placed(call, row.position) for call, row in zip(accepted, rows, strict=True)]


async def _many(connection: AsyncConnection, statement: Any, parameters: list[dict[str, Any]]) -> None:
    if parameters:
        await connection.execute(statement, parameters)


def _values(call: CallRecord) -> dict[str, Any]:
    return {
        "id": call.id,
        "app_id": call.app_id,
        "function": call.function,
        "created_at": call.created_at,
        "head": call.head,
        "client": call.client,
        "body": call.body.inline,
        "body_size": call.body.size,
        "body_file": call.body.file,
        "state": call.state.value,
        "attempts": call.attempts,
    }


def _start(change: Started) -> dict[str, Any]:
    return {"call_id": change.call_id, "new_attempts": change.attempts}


def _requeue(change: Requeued) -> dict[str, Any]:
    return {"call_id": change.call_id, "new_attempts": change.attempts, "new_not_before": change.not_before}


def _finish(change: Finished) -> dict[str, Any]:
    outcome = change.outcome
    return {
        "call_id": change.call_id,
        "new_finished_at": change.at,
        "new_status": outcome.status,
        "new_code": outcome.code,
        "new_lines": outcome.lines,
        "new_result": outcome.body.inline,
        "new_result_size": outcome.body.size,
        "new_result_file": outcome.body.file,
    }


def _placed(call: CallRecord, position: int) -> CallRecord:
    return replace(call, position=position)


def _record(row: Row[Any]) -> CallRecord:
    outcome = None
    if row.status is not None:
        outcome = Outcome(
            status=row.status,
            lines=row.lines,
            body=Body(row.result_size, row.result, row.result_file),
            code=row.code,
        )
    return CallRecord(
        id=row.id,
        position=row.position,
        app_id=row.app_id,
        function=row.function,
        created_at=row.created_at,
        head=row.head,
        client=row.client,
        body=Body(row.body_size, row.body, row.body_file),
        state=CallState(row.state),
        attempts=row.attempts,
        not_before=row.not_before,
        finished_at=row.finished_at,
        outcome=outcome,
    )
