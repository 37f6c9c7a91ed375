"""Stored calls: their ids, when they run again, how many run at a time, and how long their results are kept.

Laws:
- A call is sent to a container at most once, unless its function's `retries` allow more.
- Calls of a function begin in the order in which they were accepted; one that waits for a retry lets others pass.
- Those of a method begin so for each set of its class's parameters: a busy set does not keep the others waiting.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import Final, Generic, TypeVar

from portico.model.spec import RetryPolicy

KEPT: Final = 7 * 86400.0  # seconds that a result stays
FIRST_WINDOW: Final = 16  # calls under way at the start
LAST_WINDOW: Final = 1000
MOST_WAITING: Final = 64  # of these, calls that wait in the pool's queue beside other inputs
GROWTH: Final = 0.25  # seconds after which twice as many may be under way, while others wait
LINES: Final = 64  # of a method whose class has parameters; sets of them that share one wait for one another
PAGE: Final = 256  # waiting calls of a function that are in memory; the rest is in the store

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH: Final = 26
_RANDOM_BITS: Final = 80

T = TypeVar("T")


def make_id(now: float, randomness: int) -> str:
    """A call's id: the milliseconds of its time, and 80 random bits, which nobody guesses."""
    number = int(now * 1000) << _RANDOM_BITS | randomness & (1 << _RANDOM_BITS) - 1
    return "fc-" + "".join(_ALPHABET[number >> shift & 31] for shift in range((_LENGTH - 1) * 5, -1, -5))


def made_at(call_id: str) -> float | None:
    """When this id was made; None when it is none."""
    digits = call_id.removeprefix("fc-")
    if len(digits) != _LENGTH or digits == call_id or any(digit not in _ALPHABET for digit in digits):
        return None
    number = 0
    for digit in digits:
        number = number << 5 | _ALPHABET.index(digit)
    return (number >> _RANDOM_BITS) / 1000


def expired_before(now: float) -> float:
    """Results of calls that ended before then are removed."""
    return now - KEPT


def is_expired(call_id: str, now: float) -> bool:
    """Whether a call that is not kept any more may have been one."""
    made = made_at(call_id)
    return made is not None and made < expired_before(now)


def next_attempt(policy: RetryPolicy | None, attempts: int, now: float) -> float | None:
    """When a call that has failed so often runs again; None when it does not."""
    delay = None if policy is None else policy.delay(attempts)
    return None if delay is None else now + delay


def line_of(function: str, parameters: str) -> str:
    """The line in which calls wait. parameters: of the class that it is a method of, as canonical text."""
    return function if not parameters else f"{function}#{zlib.crc32(parameters.encode()) % LINES}"


def function_of(line: str) -> str:
    """Whose line this is."""
    return line.partition("#")[0]


class Line(Generic[T]):
    """Waiting calls of one function: the first ones here, the rest in the store; and how many may be under way."""

    def __init__(self) -> None:
        self._ready: deque[T] = deque()
        self.position = 0  # of the last one that was here
        self.more = False  # whether there may be others behind it, in the store
        self._passed_by = False  # some came while a page was being read
        self.window = FIRST_WINDOW
        self.under_way = 0
        self.waiting = 0  # of these, how many have no slot yet

    def __repr__(self) -> str:
        more = "+" if self.more else ""
        return f"<Line {len(self._ready)}{more} ready, {self.under_way} of {self.window} under way>"

    def __len__(self) -> int:
        return len(self._ready)

    def join(self, call: T, position: int) -> bool:
        """A call was accepted, behind all others; whether it is here now, and not only in the store."""
        if position <= self.position:
            return False  # a page has brought it already
        if self.more or len(self._ready) >= PAGE:
            self.more = self._passed_by = True
            return False
        self._ready.append(call)
        self.position = position
        return True

    def begin_page(self) -> int:
        """A page is being read: from which position on."""
        self._passed_by = False
        return self.position

    def page(self, calls: list[T], position: int, *, full: bool) -> None:
        """The next calls, up to a position; a page that is not full has the last ones."""
        self._ready += calls
        self.position = max(self.position, position)
        self.more = full or self._passed_by

    def again(self, call: T) -> None:
        """One that had its turn already: before those that have not."""
        self._ready.appendleft(call)

    def take(self) -> T | None:
        """The next one to ask for a slot, if it may."""
        if not self._ready or self.under_way >= self.window or self.waiting >= MOST_WAITING:
            return None
        self.under_way += 1
        self.waiting += 1
        return self._ready.popleft()

    @property
    def runs_short(self) -> bool:
        """Whether the next page should be read."""
        return self.more and not self._ready

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._ready and not self.more and not self.under_way

    def shrink(self) -> None:
        """One was not even let into the queue: begin slowly again."""
        self.window = FIRST_WINDOW

    def grow(self) -> bool:
        """Time has passed: whether more may be under way, since others wait. Without them it begins slowly again."""
        if not self._ready:
            self.window = FIRST_WINDOW
            return False
        if self.window >= LAST_WINDOW:
            return False
        self.window = min(self.window * 2, LAST_WINDOW)
        return True
