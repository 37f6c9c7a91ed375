"""Many calls at the same time: inputs are taken as they are needed, results come in order or as they are ready.

At most OUTSTANDING inputs have been taken and not yet given back as results. Of these, a few are on their way at first,
and more while others still wait: short calls need few connections, long ones find a container each.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from portico.client import loops
from portico.client.answers import Route, arguments
from portico.client.retrying import result_of
from portico.model import errors

OUTSTANDING: Final = 1000
_FIRST: Final = 16  # calls on their way at the start
_GROWTH: Final = 0.25  # seconds after which twice as many may be, while inputs wait
_BATCH: Final = 64  # inputs taken at a time
_BATCH_SECONDS: Final = 0.005
_NEVER: Final = float("inf")
_PAUSE: Final = 0.1  # seconds before a call that the server did not take is sent again; doubles
_LONGEST_PAUSE: Final = 5.0


class Outcome(NamedTuple):
    """What became of one input; the last one of all is `last`, with the error that ended it all, if any."""

    value: Any = None
    error: BaseException | None = None
    last: bool = False


class Results:
    """The results of a map: for `for` and for `async for`. Nothing is called before they are asked for."""

    def __init__(self, route: Route, inputs: Inputs, *, ordered: bool, return_exceptions: bool) -> None:
        self._flow = Flow(route, inputs, ordered)
        self._name = f"{route.function}.{route.verb}"
        self._return_exceptions = return_exceptions
        self._used = False

    def __repr__(self) -> str:
        return f"<Results of {self._name}>"

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"The results of `{self._name}()` were never asked for, so nothing was called. Write "
                f"`for result in {self._name}(...)`, `list(...)`, or `for_each`.",
                stacklevel=2,
            )

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        if asyncio._get_running_loop() is not None:
            verb = self._name.rpartition(".")[2]
            raise errors.InvalidError(
                f"You can't iter(Function.{verb}()) from an async function. "
                f"Use async for ... in Function.{verb}.aio() instead."
            )
        return self._values()

    def __aiter__(self) -> AsyncIterator[Any]:
        self._begin()
        return self._values_aio()

    def _begin(self) -> None:
        if self._used:
            raise errors.InvalidError(f"The results of `{self._name}()` can be asked for once.")
        self._used = True

    def _values(self) -> Generator[Any, None, None]:
        batches: queue.SimpleQueue[list[Outcome]] = queue.SimpleQueue()
        loop = background_loop()
        running = asyncio.run_coroutine_threadsafe(self._flow.run(_Batching(loop, batches.put)), loop)
        try:
            while True:
                for outcome in batches.get():
                    if outcome.last:
                        self._raise(outcome)
                        return
                    if self._flow.given():
                        loop.call_soon_threadsafe(self._flow.go_on)
                    yield self._value(outcome)
        finally:
            running.cancel()

    async def _values_aio(self) -> AsyncGenerator[Any, None]:
        outcomes: deque[Outcome] = deque()
        news = asyncio.Event()

        def deliver(outcome: Outcome) -> None:
            outcomes.append(outcome)
            news.set()

        running = asyncio.ensure_future(self._flow.run(deliver))
        try:
            while True:
                while outcomes:
                    outcome = outcomes.popleft()
                    if outcome.last:
                        self._raise(outcome)
                        return
                    if self._flow.given():
                        self._flow.go_on()
                    yield self._value(outcome)
                news.clear()
                await news.wait()
        finally:
            running.cancel()
            await asyncio.wait([running])

    def _value(self, outcome: Outcome) -> Any:
        if outcome.error is None:
            return outcome.value
        if self._return_exceptions:
            return outcome.error
        raise outcome.error

    def _raise(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            raise outcome.error


class _Batching:
    """Outcomes for another thread, which is woken once for all that come in one turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, put: Callable[[list[Outcome]], None]) -> None:
        self._loop = loop
        self._put = put
        self._batch: list[Outcome] = []

    def __call__(self, outcome: Outcome) -> None:
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(outcome)

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._put(batch)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where the arguments of the calls come from: one iterable for each argument, or one of sequences of them."""

    iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...]
    star: bool
    kwargs: dict[str, Any]

    def payloads(self, route: Route) -> Taking:
        """A way to take them, as payloads of requests."""

        def payload(items: tuple[Any, ...]) -> Sequence[bytes]:
            return arguments(route, tuple(items[0]) if self.star else items, self.kwargs)

        if not any(hasattr(iterable, "__aiter__") for iterable in self.iterables):
            return _taking(map(payload, zip(*self.iterables, strict=False)))
        return _taking_aio(_zip(self.iterables), payload)


Taking = Callable[
    [int], "asyncio.Future[tuple[list[Sequence[bytes]], bool]] | Any"
]  # at most so many -> these, and if there are more


class Flow:
    """Inputs on their way to results, on one loop."""

    def __init__(self, route: Route, inputs: Inputs, ordered: bool) -> None:
        self._route = route
        self._inputs = inputs
        self._ordered = ordered
        self._deliver: Callable[[Outcome], None] = lambda outcome: None
        self._waiting: deque[tuple[int, Sequence[bytes]]] = deque()
        self._callers: set[asyncio.Task[None]] = set()
        self._window = _FIRST
        self._early: dict[int, Outcome] = {}  # results that came before those of earlier inputs
        self._next = 0
        self._taken = 0
        self._given = 0
        self._enough: float = _NEVER  # given results with which inputs are taken again
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self, deliver: Callable[[Outcome], None]) -> None:
        """Call for all inputs; `deliver` each outcome, then the last."""
        self._deliver = deliver
        growth = asyncio.ensure_future(self._grow())
        last = Outcome(last=True)
        try:
            await self._feed()
            while self._callers:
                self._idle.clear()
                await self._idle.wait()
            if self._failure is not None:
                raise self._failure
        except Exception as error:
            last = Outcome(error=error, last=True)
        finally:
            growth.cancel()
            for caller in self._callers:
                caller.cancel()
            deliver(last)

    def given(self) -> bool:
        """One result is given to who wants it; whether to `go_on` for that. From one thread, which may be any."""
        self._given += 1
        return self._given == self._enough

    def go_on(self) -> None:
        """Take inputs again. On the loop."""
        self._room.set()

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _feed(self) -> None:
        take = self._inputs.payloads(self._route)
        more = True
        while more and await self._has_room():
            payloads, more = await take(min(OUTSTANDING - self._taken + self._given, _BATCH))
            for payload in payloads:
                self._waiting.append((self._taken, payload))
                self._taken += 1
            self._send()

    async def _has_room(self) -> bool:
        """Return when a batch may be taken; or when less may be, and no input waits to be sent. False: no more is."""
        while self._failure is None:
            batch = _BATCH if self._waiting else 1
            self._room.clear()
            self._enough = self._taken - OUTSTANDING + batch
            if self._given >= self._enough:  # looked at after it was said: who gives is in another thread
                self._enough = _NEVER
                return True
            await self._room.wait()
        return False

    async def _grow(self) -> None:
        while True:
            await asyncio.sleep(_GROWTH)
            if self._waiting and self._window < OUTSTANDING:
                self._window *= 2
                self._send()

    def _send(self) -> None:
        for _ in range(min(self._window - len(self._callers), len(self._waiting))):
            caller = asyncio.ensure_future(self._call())
            self._callers.add(caller)
            caller.add_done_callback(self._called)

    def _called(self, caller: asyncio.Task[None]) -> None:
        self._callers.discard(caller)
        if not caller.cancelled() and (error := caller.exception()) is not None:
            self._failure = error
            self._waiting.clear()
            self._room.set()
        if not self._callers:
            self._idle.set()

    async def _call(self) -> None:
        while self._waiting:
            index, payload = self._waiting.popleft()
            if not self._waiting:
                self._room.set()
            try:
                outcome = Outcome(await self._once_taken(payload))
            except (errors.ConnectionError, errors.NotFoundError):
                raise  # it is so for all inputs
            except Exception as error:
                outcome = Outcome(error=error)
            self._done(index, outcome)

    async def _once_taken(self, payload: Sequence[bytes]) -> Any:
        pause = _PAUSE
        while True:
            outcome = await loops.send(self._route, payload)
            if not isinstance(outcome, errors.Error) or outcome.has_run:
                return result_of(outcome, self._route)
            await asyncio.sleep(pause)  # too many wait for this function already
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _done(self, index: int, outcome: Outcome) -> None:
        if not self._ordered:
            self._deliver(outcome)
            return
        self._early[index] = outcome
        while (outcome_now := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._deliver(outcome_now)


def _taking(payloads: Iterator[Sequence[bytes]]) -> Taking:
    """The user's iterator may take its time: it runs in a thread, as far as it comes in a moment."""

    def take(number: int) -> tuple[list[Sequence[bytes]], bool]:
        end = time.monotonic() + _BATCH_SECONDS
        taken = []
        for payload in islice(payloads, number):
            taken.append(payload)
            if time.monotonic() > end:
                return taken, True
        return taken, len(taken) == number

    return lambda number: asyncio.to_thread(take, number)


def _taking_aio(items: AsyncIterator[tuple[Any, ...]], payload: Callable[[tuple[Any, ...]], Sequence[bytes]]) -> Taking:
    async def take(number: int) -> tuple[list[Sequence[bytes]], bool]:
        async for item in items:
            return [payload(item)], True
        return [], False

    return take


async def _zip(iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...]) -> AsyncIterator[tuple[Any, ...]]:
    iterators = [aiter(it) if isinstance(it, AsyncIterable) else iter(it) for it in iterables]
    while True:
        item = []
        for iterator in iterators:
            try:
                item.append(await anext(iterator) if isinstance(iterator, AsyncIterator) else next(iterator))
            except (StopIteration, StopAsyncIteration):
                return
        yield tuple(item)


# -- a loop for those who have none ------------------------------------------------------------------------------------
_loop: asyncio.AbstractEventLoop | None = None
_starting = threading.Lock()


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of a thread of this process that does nothing else."""
    global _loop
    with _starting:
        if _loop is None:
            _loop = loops.new_loop()
            threading.Thread(target=_loop.run_forever, name="portico-calls", daemon=True).start()
        return _loop


def _forget_loop() -> None:
    global _loop, _starting
    _loop, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_loop)
