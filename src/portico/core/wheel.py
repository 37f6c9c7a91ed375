"""Deadlines of many things at the cost of one timer: buckets of one second.

An item that moves its deadline does not tell the wheel; the wheel looks at `item.deadline` when its bucket comes.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Dated(Protocol):
    """Something with a deadline, in seconds of the caller's clock."""

    deadline: float


T = TypeVar("T", bound=Dated)


class Wheel(Generic[T]):
    """Items by the second in which they are looked at next. `horizon` bounds how long one is not looked at."""

    def __init__(self, horizon: float = 60.0) -> None:
        self._horizon = horizon
        self._buckets: dict[int, dict[T, None]] = {}
        self._where: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._where)

    def put(self, item: T, now: float) -> None:
        """Watch this item."""
        bucket = int(min(item.deadline, now + self._horizon)) + 1
        self._buckets.setdefault(bucket, {})[item] = None
        self._where[item] = bucket

    def drop(self, item: T) -> None:
        """Watch it no longer."""
        bucket = self._where.pop(item, None)
        if bucket is not None:
            self._buckets[bucket].pop(item, None)

    def turn(self, now: float) -> list[T]:
        """The items whose deadline has passed; they are no longer watched."""
        late: list[T] = []
        for bucket in sorted(b for b in self._buckets if b <= now):
            for item in self._buckets.pop(bucket):
                del self._where[item]
                if item.deadline <= now:
                    late.append(item)
                else:
                    self.put(item, now)
        return late
