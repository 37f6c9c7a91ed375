"""When a function whose containers fail may try again."""

from __future__ import annotations

FIRST_DELAY = 0.5
MAX_DELAY = 30.0
FORGET = 60.0  # a failure this long after the one before is a first one again


class Backoff:
    """Counts failures in a row; the wait doubles from half a second to half a minute. Times are seconds."""

    __slots__ = ("_failed_at", "failures", "not_before")

    def __init__(self) -> None:
        self.failures = 0
        self.not_before = 0.0
        self._failed_at = 0.0

    def failed(self, now: float) -> None:
        """One more failure."""
        if now - self._failed_at > FORGET + MAX_DELAY:
            self.failures = 0
        self._failed_at = now
        self.not_before = now + min(FIRST_DELAY * 2**self.failures, MAX_DELAY)
        self.failures = min(self.failures + 1, 16)

    def succeeded(self) -> None:
        """A start worked: the next may be at once. The count stays, for what starts well and then dies."""
        self.not_before = 0.0

    def remaining(self, now: float) -> float:
        """Seconds until the next try; 0 when it may be now."""
        return max(0.0, self.not_before - now)


class Streak:
    """Counts what ends too early, in a row. Those that were side by side count as one."""

    __slots__ = ("_at", "count")

    def __init__(self) -> None:
        self.count = 0
        self._at = 0.0

    def add(self, began: float, now: float) -> int:
        """What began then has ended now; how many there are in a row."""
        if began >= self._at:
            self.count += 1
            self._at = now
        return self.count

    def end(self) -> None:
        """One did not end too early."""
        self.count = 0
