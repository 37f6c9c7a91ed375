"""What bytes mean that come again and again: heads of requests and responses, mostly."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

_LIMIT: Final = 512  # that are known, and that have come once

T = TypeVar("T")


class Memory(Generic[T]):
    """Meanings by bytes. What comes once takes no place; what there is too much of is forgotten."""

    def __init__(self) -> None:
        self.known: dict[bytes, T] = {}
        self._once: set[bytes] = set()

    def has_seen(self, raw: bytes) -> bool:
        """Whether it comes for the second time."""
        if raw in self._once:
            return True
        if len(self._once) >= _LIMIT:
            self._once.clear()
        self._once.add(raw)
        return False

    def learn(self, raw: bytes, meaning: T) -> None:
        """Know it from now on."""
        if len(self.known) >= _LIMIT:
            self.known.clear()
        self.known[raw] = meaning
