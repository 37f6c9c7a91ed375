"""Rendezvous hashing: who of several has a key. One more, or one fewer, moves no key between the others."""

from __future__ import annotations

from hashlib import blake2b


def owner(key: str, count: int) -> int:
    """Which of `count` processes, from 0, has this key: the one that draws the highest number for it."""
    if count == 1:
        return 0
    return max(range(count), key=lambda process: _draw(key, process))


def _draw(key: str, process: int) -> bytes:
    return blake2b(key.encode(), digest_size=8, salt=process.to_bytes(8, "big")).digest()
