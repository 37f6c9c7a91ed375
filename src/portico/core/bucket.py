"""A token bucket: so many requests a second, and some more at once after a pause."""

from __future__ import annotations

from typing import Final

BURST: Final = 5.0  # seconds' worth that may come at once


class TokenBucket:
    """Full at first. `now` is seconds of any clock that does not go back."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate  # a second
        self.burst = max(1.0, rate * BURST)
        self._level = self.burst
        self._at = now

    def __repr__(self) -> str:
        return f"<TokenBucket {self._level:.1f} of {self.burst:g}, {self.rate:g}/s>"

    def has_one(self, now: float) -> bool:
        """Whether one more may pass now."""
        level = self._level + (now - self._at) * self.rate
        self._level = level if level < self.burst else self.burst
        self._at = now
        return self._level >= 1.0

    def take(self) -> None:
        """One passes; only after `has_one`."""
        self._level -= 1.0

    def put_back(self) -> None:
        """After `has_one`: it does not pass after all."""

    def wait(self) -> float:
        """Seconds until the next one may pass, as of the last `has_one`."""
        return max(0.0, (1.0 - self._level) / self.rate)

    def change(self, rate: float) -> None:
        """Another rate from now on; what is in it stays, as far as it holds so much."""
        self.rate = rate
        self.burst = max(1.0, rate * BURST)
        self._level = min(self._level, self.burst)
