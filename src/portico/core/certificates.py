"""Which names have no certificate, and when to try again for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_DELAY: Final = 300.0  # seconds; an authority takes five failures an hour for a name
MAX_DELAY: Final = 6 * 3600.0
MOST: Final = 10_000  # names that are remembered


@dataclass(frozen=True, slots=True)
class Failure:
    """The last attempts have failed. delay: seconds between the last two that counted."""

    delay: float
    not_before: float


class Failures:
    """Names for which no certificate could be had. Times are seconds."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def failed(self, host: str, now: float) -> None:
        """One more attempt. What fails before the next one was due belongs to the one before."""
        last = self._failures.get(host)
        if last is not None and now < last.not_before:
            return
        delay = FIRST_DELAY if last is None else min(last.delay * 2, MAX_DELAY)
        self._failures.pop(host, None)
        if len(self._failures) >= MOST:
            del self._failures[next(iter(self._failures))]
        self._failures[host] = Failure(delay, now + delay)

    def forget(self, host: str) -> None:
        """It has a certificate, or is to be tried at once."""
        self._failures.pop(host, None)

    def may_try(self, host: str, now: float) -> bool:
        """Whether it is time to ask for a certificate."""
        failure = self._failures.get(host)
        return failure is None or failure.not_before <= now

    def due(self, now: float) -> list[str]:
        """The names that it is time to try again."""
        return [host for host, failure in self._failures.items() if failure.not_before <= now]
